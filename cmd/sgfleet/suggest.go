package main

import "github.com/sgfleet/sgfleet/fleet"

// didYouMean renders the nearest name as a tail for an error message, "" when
// none is near.
func didYouMean(word string, known []string) string {
	if n := fleet.Nearest(word, known); n != "" {
		return "; did you mean " + n + "?"
	}
	return ""
}
