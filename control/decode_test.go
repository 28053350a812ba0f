package control

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/sgfleet/sgfleet/fleet"
)

const testID = "01JDG0000000000000000000AB"

// goodOp is a v1 op with every field.
func goodOp() Op {
	return Op{
		V: Version, ID: testID, Op: OpRestart, Target: "all", RequestedBy: "oncall", TraceID: "t-1",
		IssuedAt: 1_700_000_000_000_000, ExpiresAt: 1_700_000_030_000_000,
		Args: Args{GatewayDeadline: 1_700_000_090_000_000, Revision: "0123abcd", IncludeFailed: true},
	}
}

func mustEncode(t testing.TB, op Op) string {
	t.Helper()
	b, err := op.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDecodeRoundTrip(t *testing.T) {
	op := goodOp()
	got, err := Decode([]byte(mustEncode(t, op)), fleet.Default())
	if err != nil || !reflect.DeepEqual(got, op) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, op)
	}
	op.ReplyField, op.ReplyKey = "reply_key", "sg:control:reply:"+testID
	got, err = Decode([]byte(mustEncode(t, op)), fleet.Default())
	if err != nil || !reflect.DeepEqual(got, goodOp()) {
		t.Fatalf("with the legacy field: got %+v, %v; want it ignored", got, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := mustEncode(t, goodOp())
	swap := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s does not contain %s", good, old)
		}
		return strings.Replace(good, old, new, 1)
	}
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	for _, tt := range []struct {
		name, payload string
		want          RejectReason
	}{
		{"Empty", "", RejectMalformed},
		{"Text", "restart all", RejectMalformed},
		{"Array", "[" + good + "]", RejectMalformed},
		{"String", `"restart"`, RejectMalformed},
		{"TwoDocuments", good + good, RejectMalformed},
		{"TrailingByte", good + "x", RejectMalformed},
		{"Truncated", good[:len(good)-1], RejectMalformed},
		{"OneByteTooLarge", swap(`"oncall"`, `"`+strings.Repeat("x", MaxOpBytes+1-len(good)+6)+`"`), RejectTooLarge},
		{"Megabyte", `{"op":"` + strings.Repeat("x", 1<<20) + `"}`, RejectTooLarge},
		{"BadUTF8", swap("oncall", "on\xffcall"), RejectUTF8},
		{"DepthBombArray", deep[:8000] + deep[12000:], RejectMalformed},
		{"DepthBombInside", swap(`{"v"`, `{"x":`+deep[10_000-2000:10_000+2000]+`,"v"`), RejectDepth},
		{"DepthNine", swap(`{"v"`, `{"x":[[[[[[[[]]]]]]]],"v"`), RejectDepth},
		{"SameKeyTwice", swap(`"op":"restart"`, `"op":"pull","op":"restart"`), RejectDuplicateKey},
		{"SameKeyOtherCase", swap(`"op":"restart"`, `"op":"pull","OP":"restart"`), RejectDuplicateKey},
		{"SameKeyEscaped", swap(`"op":"restart"`, `"op":"pull","\u006fp":"restart"`), RejectDuplicateKey},
		{"SameKeyLongS", swap(`"args":{`, `"argſ":{},"args":{`), RejectDuplicateKey},
		{"SameKeyKelvin", swap(`{"v"`, `{"k":1,"K":1,"v"`), RejectDuplicateKey},
		{"SameKeyNested", swap(`"args":{`, `"args":{"revision":"a","Revision":"b",`), RejectDuplicateKey},
		{"SameKeyInArray", swap(`{"v"`, `{"x":[{"a":1,"A":2}],"v"`), RejectDuplicateKey},
		{"OtherCaseOnly", swap(`"op"`, `"OP"`), RejectUnknownField},
		{"UnknownField", swap(`{"v"`, `{"dry_run":true,"v"`), RejectUnknownField},
		{"UnknownArg", swap(`"args":{`, `"args":{"dry_run":true,`), RejectUnknownField},
		{"NoVersion", swap(`"v":1,`, ``), RejectShape},
		{"NextVersion", swap(`"v":1`, `"v":2`), RejectVersion},
		{"NextVersionWithNewField", swap(`"v":1`, `"v":2,"new":1`), RejectVersion},
		{"VersionZero", swap(`"v":1`, `"v":0`), RejectVersion},
		{"VersionNull", swap(`"v":1`, `"v":null`), RejectShape},
		{"VersionText", swap(`"v":1`, `"v":"1"`), RejectShape},
		{"VersionFraction", swap(`"v":1`, `"v":1.0`), RejectShape},
		{"OpNumber", swap(`"op":"restart"`, `"op":1`), RejectShape},
		{"ArgsArray", swap(`"args":{`, `"trace_idx":1,"args":[],"x":{`), RejectShape},
		{"ArgsType", swap(`"include_failed":true`, `"include_failed":"yes"`), RejectShape},
		{"AuthText", swap(`{"v"`, `{"auth":"x","v"`), RejectShape},
		{"IDShort", swap(testID, "01JD"), RejectID},
		{"IDLowerCase", swap(testID, strings.ToLower(testID)), RejectID},
		{"IDKeyInjection", swap(testID, "../:*{}000000000000000000A"), RejectID},
		{"IDNewline", swap(testID, `01JDG000000000000000000\n1AB`), RejectID},
		{"UnknownOp", swap(`"restart"`, `"shutdown"`), RejectUnknownOp},
		{"EmptyOp", swap(`"restart"`, `""`), RejectUnknownOp},
		{"EmptyTarget", swap(`"all"`, `""`), RejectField},
		{"BlankTarget", swap(`"all"`, `" "`), RejectField},
		{"LongTarget", swap(`"all"`, `"`+strings.Repeat("x", maxTarget+1)+`"`), RejectField},
		{"ControlInRequestedBy", swap("oncall", `on\u0007call`), RejectField},
		{"EscapeInTraceID", swap("t-1", `\u001b[2J`), RejectField},
		{"BidiInRequestedBy", swap("oncall", `on\u202ecall`), RejectField},
		{"LongRequestedBy", swap("oncall", strings.Repeat("x", maxLabel+1)), RejectField},
		{"RevisionOption", swap("0123abcd", "--upload-pack=x"), RejectField},
		{"RevisionRange", swap("0123abcd", "a..b"), RejectField},
		{"NoIssue", swap(`"issued_at":1700000000000000`, `"issued_at":0`), RejectTime},
		{"ExpiresBeforeIssued", swap(`"expires_at":1700000030000000`, `"expires_at":1600000000000000`), RejectTime},
		{"LivesTooLong", swap(`"expires_at":1700000030000000`, `"expires_at":1700000120000001`), RejectTime},
		{"LifeOverflows", swap(`"expires_at":1700000030000000`, `"expires_at":9223372036854775807`), RejectTime},
		{"TimeOverflows", swap(`"expires_at":1700000030000000`, `"expires_at":92233720368547758070`), RejectShape},
		{"GatewayWaitsForEver", swap(`"gateway_deadline":1700000090000000`, `"gateway_deadline":9223372036854775807`), RejectTime},
		{"LegacyUnknownOp", `{"op":"format_disk","target":"all"}`, RejectUnknownOp},
		{"LegacyNoOp", `{"target":"all"}`, RejectShape},
		{"LegacyEmpty", `{}`, RejectShape},
		{"LegacyNoTarget", `{"op":"restart"}`, RejectField},
		{"LegacyForeignReplyKey", `{"op":"restart","target":"all","reply_key":"sg:control:live"}`, RejectReplyKey},
		{"LegacyBareReplyPrefix", `{"op":"restart","target":"all","reply_key":"sg:control:reply:"}`, RejectReplyKey},
		{"LegacyReplyKeyNewline", `{"op":"restart","target":"all","reply_key":"sg:control:reply:a\nb"}`, RejectReplyKey},
		{"LegacyReplyKeyNumber", `{"op":"restart","target":"all","reply_key":1}`, RejectShape},
	} {
		t.Run(tt.name, func(t *testing.T) {
			op, err := Decode([]byte(tt.payload), fleet.Default())
			var r *Reject
			if !errors.As(err, &r) {
				t.Fatalf("got op %+v, error %v; want it refused as %s", op, err, tt.want)
			}
			if r.Reason != tt.want {
				t.Errorf("got %v; want %s", r, tt.want)
			}
			if r.Detail == "" || !printable(r.Detail) {
				t.Errorf("detail %q is not fit for chat", r.Detail)
			}
		})
	}
}

// A daemon of this version must be able to tell a newer publisher why it does
// not act.
func TestDecodeAnswerable(t *testing.T) {
	good := mustEncode(t, goodOp())
	for _, payload := range []string{
		strings.Replace(good, `"v":1`, `"v":2,"new_field":[1]`, 1),
		strings.Replace(good, `"restart"`, `"drain"`, 1),
		strings.Replace(good, `"args":{`, `"args":{"softly":true,`, 1),
	} {
		op, err := Decode([]byte(payload), fleet.Default())
		var r *Reject
		if !errors.As(err, &r) || !r.Answerable() || op.ID != testID || op.Target != "all" {
			t.Errorf("got %+v, %v from %s; want an answerable refusal with id and target", op, err, payload)
		}
	}
}

func TestDecodeLegacy(t *testing.T) {
	payload := `{"op":"pull","target":"inference","requested_by":"bot","reply_key":"sg:control:reply:req-7","ts":12.5}`
	op, err := Decode([]byte(payload), fleet.Default())
	if err != nil {
		t.Fatal(err)
	}
	want := Op{Op: OpPull, Target: "inference", RequestedBy: "bot", Legacy: true, ReplyKey: "sg:control:reply:req-7", ID: op.ID}
	if !reflect.DeepEqual(op, want) {
		t.Errorf("got  %+v\nwant %+v", op, want)
	}
	if !validID(op.ID) {
		t.Errorf("derived id %q is not of ULID form", op.ID)
	}
	again, _ := Decode([]byte(payload), fleet.Default())
	other, _ := Decode([]byte(strings.Replace(payload, "req-7", "req-8", 1)), fleet.Default())
	if again.ID != op.ID || other.ID == op.ID {
		t.Errorf("ids %s, %s, %s: want the first two equal and the third different", op.ID, again.ID, other.ID)
	}
	cfg := fleet.Default()
	cfg.Legacy.ReplyField = "answer_to"
	op, err = Decode([]byte(strings.Replace(payload, "reply_key", "answer_to", 1)), cfg)
	if err != nil || op.ReplyKey != "sg:control:reply:req-7" {
		t.Errorf("renamed field: got %+v, %v", op, err)
	}
}

func TestEncodeRefusesAnOversizedOp(t *testing.T) {
	op := goodOp()
	op.Target = strings.Repeat("web@host,", 2000)
	if b, err := op.Encode(); err == nil {
		t.Errorf("got %d bytes; want an error", len(b))
	}
}

func TestNewID(t *testing.T) {
	at := fleet.Time(1_700_000_000_000_000)
	a, b, c := newID(at, "x"), newID(at, "y"), newID(at+1000, "x")
	if !validID(a) || a == b || a[:10] != b[:10] || !(a < c) {
		t.Errorf("ids %s, %s, %s: want valid, distinct, sorted by time", a, b, c)
	}
}

// mutate damages a payload in one of the ways that a broken or hostile peer
// would.
func mutate(r *rand.Rand, b []byte) []byte {
	b = append([]byte(nil), b...)
	for range 1 + r.IntN(4) {
		if len(b) == 0 {
			return b
		}
		i := r.IntN(len(b))
		switch r.IntN(8) {
		case 0:
			b[i] = byte(r.IntN(256))
		case 1:
			b = b[:i]
		case 2:
			b = append(b[:i], b[i+1:]...)
		case 3:
			b = append(b[:i:i], append([]byte{byte(r.IntN(256))}, b[i:]...)...)
		case 4: // a token of JSON where it does not belong
			tokens := []string{`{`, `}`, `[`, `]`, `"`, `,`, `:`, `\`, `null`, `1e999`, `-`, `"op":"restart",`, `"OP":1,`, `\ud800`}
			b = append(b[:i:i], append([]byte(tokens[r.IntN(len(tokens))]), b[i:]...)...)
		case 5: // a stretch twice
			j := min(len(b), i+r.IntN(40))
			b = append(b[:j:j], b[i:]...)
		case 6:
			j := min(len(b), i+r.IntN(40))
			b = append(b[:i:i], b[j:]...)
		case 7:
			if b[i] >= '0' && b[i] <= '9' {
				b[i] = '0' + byte(r.IntN(10))
			}
		}
	}
	return b
}

// checkDecoded holds what every op that Decode lets through must satisfy.
func checkDecoded(t *testing.T, payload []byte) (refused bool) {
	t.Helper()
	cfg := fleet.Default()
	op, err := Decode(payload, cfg)
	if err != nil {
		var r *Reject
		if !errors.As(err, &r) || r.Detail == "" {
			t.Fatalf("Decode(%q): error %v is no *Reject with a detail", payload, err)
		}
		if !r.Answerable() && !reflect.DeepEqual(op, Op{}) {
			t.Fatalf("Decode(%q): refused with %v, yet returned %+v", payload, r, op)
		}
		return true
	}
	_, known := opSpecs[op.Op]
	switch {
	case !known, !validID(op.ID), strings.TrimSpace(op.Target) == "", !printable(op.Target), !printable(op.RequestedBy), !printable(op.TraceID):
		t.Fatalf("Decode(%q) let through %+v", payload, op)
	case op.Legacy && (op.V != 0 || op.IssuedAt != 0 || op.ReplyKey != "" && !strings.HasPrefix(op.ReplyKey, cfg.Keys().ReplyPrefix())):
		t.Fatalf("Decode(%q) let through legacy %+v", payload, op)
	case !op.Legacy && (op.V != Version || op.ReplyKey != "" || op.ExpiresAt <= op.IssuedAt || op.ExpiresAt.Sub(op.IssuedAt) > MaxOpLife):
		t.Fatalf("Decode(%q) let through %+v", payload, op)
	}
	return false
}

func TestTenThousandMalformedOps(t *testing.T) {
	seeds := [][]byte{
		[]byte(mustEncode(t, goodOp())),
		[]byte(`{"op":"restart","target":"all","requested_by":"bot","reply_key":"sg:control:reply:abc"}`),
	}
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for i := range 10_000 {
		if checkDecoded(t, mutate(r, seeds[i%len(seeds)])) {
			refused++
		}
	}
	if refused < 5000 {
		t.Errorf("only %d of 10,000 mutations were refused: the mutator is too tame", refused)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(mustEncode(f, goodOp())))
	f.Add([]byte(`{"op":"restart","target":"all","reply_key":"sg:control:reply:abc"}`))
	f.Add([]byte(`{"v":2,"id":"01JDG0000000000000000000AB","target":"all","x":[{"a":{}}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) { checkDecoded(t, payload) })
}

func BenchmarkDecode(b *testing.B) {
	payload, cfg := []byte(mustEncode(b, goodOp())), fleet.Default()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(payload, cfg); err != nil {
			b.Fatal(err)
		}
	}
}
