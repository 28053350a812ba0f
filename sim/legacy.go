package sim

import "context"

func runLegacy(ctx context.Context, inc *incarnation) error { <-ctx.Done(); return nil }
