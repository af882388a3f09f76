// Package helm tests the chart: rendered by the real helm, held against golden files, decoded and judged by Kubernetes' own
// code, and its configuration by countersign itself.
package helm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Where things are; all of it is set by `make helm`.
var (
	helm        = os.Getenv("TEST_HELM")
	countersign = os.Getenv("TEST_COUNTERSIGN")
	scratch     = os.Getenv("TEST_HELM_SCRATCH")
)

const (
	chart   = "../../helm/countersign"
	release = "demo"
)

// The charts that depend on countersign's, copied to where helm may fill in their dependencies.
var parents = map[string]string{"shop": "../../helm/examples/shop", "minimal": "minimal"}

// Every set of manifests that is looked at, by the name of its golden file.
var cases = []string{"application", "embedded", "minimal", "shop"}

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"TEST_HELM": helm, "TEST_COUNTERSIGN": countersign, "TEST_HELM_SCRATCH": scratch,
	} {
		if value == "" {
			fmt.Fprintf(os.Stderr, "%s is not set; run `make helm`\n", name)
			os.Exit(2)
		}
	}
	if err := fillInDependencies(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

func fillInDependencies() error {
	for name, source := range parents {
		copied := parent(name)
		if err := os.RemoveAll(copied); err != nil {
			return err
		}
		if err := os.CopyFS(copied, os.DirFS(source)); err != nil {
			return err
		}
		manifest := filepath.Join(copied, "Chart.yaml")
		text, err := os.ReadFile(manifest)
		if err != nil {
			return err
		}
		there, err := filepath.Abs(chart)
		if err != nil {
			return err
		}
		var lines []string
		for line := range strings.Lines(string(text)) {
			if before, _, found := strings.Cut(line, "file://"); found {
				line = before + "file://" + there + "\n"
			}
			lines = append(lines, line)
		}
		if err := os.WriteFile(manifest, []byte(strings.Join(lines, "")), 0o644); err != nil {
			return err
		}
		if _, err := run("dependency", "update", copied); err != nil {
			return err
		}
	}
	return nil
}

func parent(name string) string {
	return filepath.Join(scratch, name)
}

// Runs helm; the error holds what it said.
func run(arguments ...string) (string, error) {
	command := exec.Command(helm, arguments...)
	command.Env = append(os.Environ(), "HELM_CACHE_HOME="+filepath.Join(scratch, "cache"),
		"HELM_CONFIG_HOME="+filepath.Join(scratch, "config"), "HELM_DATA_HOME="+filepath.Join(scratch, "data"))
	var out, told bytes.Buffer
	command.Stdout, command.Stderr = &out, &told
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w\n%s%s", strings.Join(arguments, " "), err, out.String(), told.String())
	}
	return out.String(), nil
}

// The manifests of a case; what is rendered once is kept.
func template(t *testing.T, name string, more ...string) string {
	t.Helper()
	asked := append(arguments(name), more...)
	key := strings.Join(asked, " ")
	if known, found := rendered[key]; found {
		return known
	}
	text, err := run(asked...)
	if err != nil {
		t.Fatal(err)
	}
	// Helm 4 leaves an empty line between manifests, Helm 3 doesn't.
	rendered[key] = strings.ReplaceAll(strings.TrimSpace(text)+"\n", "\n\n---\n", "\n---\n")
	return rendered[key]
}

var rendered = map[string]string{}

func arguments(name string) []string {
	source, values := chart, []string{"--values", filepath.Join("cases", name+".yaml")}
	if _, found := parents[name]; found {
		source, values = parent(name), nil
	}
	return append([]string{"template", release, source, "--namespace", "verification", "--kube-version", "1.29.0"}, values...)
}

func TestEveryChartLintsWithoutAWarning(t *testing.T) {
	for _, linted := range []string{chart, parent("shop"), parent("minimal")} {
		if _, err := run("lint", "--strict", linted); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"application", "embedded"} {
		if _, err := run("lint", "--strict", chart, "--values", filepath.Join("cases", name+".yaml")); err != nil {
			t.Error(err)
		}
	}
}

func TestEveryCaseRendersAsItsGoldenFile(t *testing.T) {
	for _, name := range cases {
		golden := filepath.Join("golden", name+".yaml")
		rendered := template(t, name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(golden, []byte(rendered), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		expected, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(expected) != rendered {
			t.Errorf("%s differs from what is rendered; look at the difference after `make helm UPDATE_GOLDEN=1`", golden)
		}
	}
}

func TestTheChartIsOfThisRelease(t *testing.T) {
	manifest, err := os.ReadFile("../../Cargo.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(manifest), "\nversion = \"")
	version, _, _ := strings.Cut(rest, "\"")
	shown, err := run("show", "chart", chart)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(shown, "appVersion: "+version+"\n") {
		t.Errorf("Cargo.toml says %s, and the chart:\n%s", version, shown)
	}
}

func TestAClusterWithoutNativeSidecarsIsRefused(t *testing.T) {
	_, err := run("template", release, chart, "--values", "cases/embedded.yaml", "--kube-version", "1.28.0")
	if err == nil || !strings.Contains(err.Error(), "requires kubeVersion: >=1.29.0-0") {
		t.Errorf("1.28 was not refused: %v", err)
	}
}
