package helm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const mounted = "/etc/countersign/files/"

func TestCountersignTakesEveryRenderedConfiguration(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		place := t.TempDir()
		text := strings.ReplaceAll(configuration(t, pod), mounted, place+"/")
		for _, named := range regexp.MustCompile(regexp.QuoteMeta(place)+`/[^\s"',\]}]+`).FindAllString(text, -1) {
			provide(t, named)
		}
		file := filepath.Join(place, "countersign.yaml")
		write(t, file, text)
		said, err := exec.Command(countersign, "check", "--offline", "--config", file).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s\n%s", err, said, text)
		}
	})
}

func TestEveryFileTheConfigurationNamesIsMounted(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		for _, named := range regexp.MustCompile(mounted+`[^\s"',\]}]+`).FindAllString(configuration(t, pod), -1) {
			found := slices.ContainsFunc(pod.countersign.VolumeMounts, func(mount corev1.VolumeMount) bool {
				return filepath.Dir(named) == mount.MountPath
			})
			if !found {
				t.Errorf("%s is not mounted", named)
			}
		}
	})
}

func TestLargeNumbersStayWholeNumbers(t *testing.T) {
	if rendered := template(t, "application"); !strings.Contains(rendered, "      max_entries: 100000000\n") {
		t.Errorf("%s", rendered)
	}
	set := template(t, "embedded", "--set", "config.cache.max_entries=10000000")
	if !strings.Contains(set, "      max_entries: 10000000\n") {
		t.Errorf("%s", set)
	}
}

// Makes a file of the kind that its name says.
func provide(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	switch name := filepath.Base(path); {
	case name == "signing.json":
		makeKeys(t, path, "signing")
	case name == "handles.json":
		makeKeys(t, path, "handles")
	case name == "jwks.json":
		write(t, path, `{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA", "use": "sig",`+
			` "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)
	case name == "password":
		write(t, path, "correct horse battery staple")
	case strings.HasSuffix(name, ".crt"), strings.HasSuffix(name, ".key"):
		makeCertificate(t, filepath.Dir(path))
	default:
		t.Fatalf("what is %s?", path)
	}
}

func makeKeys(t *testing.T, path, purpose string) {
	t.Helper()
	if said, err := exec.Command(countersign, "keys", "new", path, "--purpose", purpose).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
}

// A certificate that is its own authority, by the names that Kubernetes gives the files of a TLS Secret.
func makeCertificate(t *testing.T, directory string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wanted := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.com"}, DNSNames: []string{"example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, &wanted, &wanted, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	write(t, filepath.Join(directory, "tls.crt"), chain)
	write(t, filepath.Join(directory, "ca.crt"), chain)
	write(t, filepath.Join(directory, "tls.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What the chart decides; whoever writes it is refused.
var chartsOwn = []string{"api.tcp", "api.unix", "api.unix_group", "ops.address"}

func TestTheSchemaKnowsEverySettingOfTheReferenceAndNoOther(t *testing.T) {
	printed, err := exec.Command(countersign, "check", "--reference").Output()
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*?) \\| .*? \\| .*? \\|$").FindAllStringSubmatch(string(printed), -1) {
		if !slices.Contains(chartsOwn, row[1]) {
			documented[row[1]] = row[2]
		}
	}
	if len(documented) < 100 {
		t.Fatalf("%d settings in the reference", len(documented))
	}
	known := map[string]node{}
	var schema node
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	walk(schema.at("properties").at("config"), "", known)
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		found, is := known[name]
		if !is {
			t.Errorf("values.schema.json lacks config.%s: %s", name, documented[name])
		} else if !found.takes(documented[name]) {
			t.Errorf("values.schema.json: config.%s takes %s, and there stands %v", name, documented[name], found)
		}
		delete(known, name)
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if documented[name] == "" && !known[name].holdsOthers() {
			t.Errorf("values.schema.json has config.%s, and the reference hasn't", name)
		}
	}
}

type node map[string]any

func (n node) at(key string) node {
	below, _ := n[key].(map[string]any)
	return below
}

func (n node) holdsOthers() bool {
	return n["properties"] != nil || n.at("additionalProperties") != nil || n.at("items")["properties"] != nil || n["oneOf"] != nil
}

// Settings below a section, by the names that the reference has for them.
func walk(section node, path string, known map[string]node) {
	if section["additionalProperties"] != false && section.at("additionalProperties") == nil {
		known[path+" (which takes any name)"] = node{}
	}
	for name, raw := range section.at("properties") {
		below := node(raw.(map[string]any))
		place := strings.TrimPrefix(path+"."+name, ".")
		known[place] = below
		if alternatives, is := below["oneOf"].([]any); is {
			for _, alternative := range alternatives {
				if one := node(alternative.(map[string]any)); one["properties"] != nil {
					walk(one, place, known)
				}
			}
		} else if below.at("items")["properties"] != nil {
			walk(below.at("items"), place+"[]", known)
		} else if below.at("additionalProperties") != nil {
			walk(below.at("additionalProperties"), place+".<name>", known)
		} else if below["properties"] != nil {
			walk(below, place, known)
		}
	}
}

// Whether it is what the reference says in words.
func (n node) takes(words string) bool {
	refers := func(name string) bool { return n["$ref"] == "#/definitions/"+name }
	switch quoted := regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(words, -1); {
	case strings.HasPrefix(words, "a duration"):
		return refers("duration") || n["pattern"] != nil
	case strings.HasPrefix(words, "a whole number"):
		return refers("count")
	case words == "a number from 0 to 1":
		return refers("fraction")
	case strings.HasPrefix(words, "`true` or `false`"):
		return n["type"] == "boolean"
	case strings.HasPrefix(words, "one of "):
		return isEnum(n, quoted)
	case strings.HasPrefix(words, "a list of `"):
		return n["type"] == "array" && isEnum(n.at("items"), quoted)
	case words == "a list of paths":
		return n["type"] == "array" && n.at("items")["$ref"] == "#/definitions/path"
	case words == "a list of texts":
		return refers("texts")
	case words == "a path":
		return refers("path")
	case words == "a URL":
		return refers("url")
	case strings.HasSuffix(words, "or a list of them"):
		return n["oneOf"] != nil
	case words == "a section", words == "sections by name":
		return n.holdsOthers()
	default:
		return refers("text")
	}
}

func isEnum(n node, quoted [][]string) bool {
	values, _ := n["enum"].([]any)
	if len(values) != len(quoted) {
		return false
	}
	for place, value := range values {
		said, _ := json.Marshal(value)
		if strings.Trim(string(said), `"`) != quoted[place][1] {
			return false
		}
	}
	return true
}
