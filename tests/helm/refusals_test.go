package helm

import (
	"path/filepath"
	"strings"
	"testing"
)

// What is refused, how it is said, and which words of the answer say why.
var refusals = []struct{ name, chart, values, because string }{
	{"a setting of the chart that is misspelt", "embedded", "podMonitr: {enabled: true}", "'podMonitr' not allowed"},
	{"a setting of countersign that is misspelt", "embedded", "config: {api: {max_conections: 5}}", "'max_conections' not allowed"},
	{"a section of countersign that is misspelt", "embedded", "config: {denylst: {max_entries: 5000}}", "'denylst' not allowed"},
	{"a listener, which the chart decides", "embedded", `config: {api: {tcp: "0.0.0.0:50051"}}`, "'tcp' not allowed"},
	{"the ops listener, which the chart decides", "embedded", `config: {ops: {address: "0.0.0.0:9090"}}`, "'ops' not allowed"},
	{"a mode that there isn't", "embedded", "mode: daemon", "must be one of 'sidecar', 'application'"},
	{"a number without a unit as duration", "embedded", "config: {api: {default_deadline: 5}}", "got number, want string"},
	{"a number in quotes", "embedded", `config: {denylist: {max_entries: "many"}}`, "got string, want integer"},
	{"a right that there isn't", "embedded", "config: {callers: [{name: web, uid: 1000, may: [everything]}]}", "/config/callers/0/may/0"},
	{"an issuer without its name", "embedded", "config: {issuers: [{audiences: [orders]}]}", "missing property 'issuer'"},
	{"a password in the store's URL", "embedded", "config: {store: 'redis://countersign:secret@redis.example.com'}", "/config/store"},
	{"a secret that is written, not named", "embedded", "files: {keys: {content: abc}}", "/files/keys"},
	{"a file both secret and not", "embedded", "files: {keys: {secret: a, configMap: b}}", "/files/keys"},
	{"a name of files that is no label", "embedded", "files: {My_Keys: {secret: a}}", "'My_Keys' does not match"},
	{"a relative path", "embedded", "config: {own: {issuer: 'https://auth.example.com', signing_keys: signing.json}}", "/config/own/signing_keys"},
	{"a port of the system's", "embedded", "ports: {ops: 80}", "/ports/ops"},
	{"no group for the socket", "embedded", "fsGroup: 0", "/fsGroup"},
	{"another user", "embedded", "securityContext: {runAsUser: 0}", "'securityContext' not allowed"},
	{"no limits", "embedded", "resources: {limits: {cpu: nope}}", "/resources/limits/cpu"},
	{"a digest that is none", "embedded", "image: {digest: latest}", "/image/digest"},
	{"a peer that is none", "embedded", "networkPolicy: {issuers: {peers: [{host: sso.example.com}]}}", "'host' not allowed"},
	{"a peer that is everyone", "embedded", "networkPolicy: {issuers: {peers: [{}]}}", "/networkPolicy/issuers/peers/0"},

	{"nobody's tokens", "embedded", "config: {issuers: []}", "whose tokens are verified? set config.own or config.issuers"},
	{"plaintext over the network", "bare", "{}", "set config.api.tls with certificate, key and client_ca"},
	{"an application that knows no caller", "bare", "config: {api: {tls: {certificate: /tls.crt, key: /tls.key}}}", "with certificate, key and client_ca"},
	{"an embedded store for several pods", "embedded", "application: {replicas: 2}", "pods do not share an embedded store"},
	{"a pod that is killed before its drain's end", "embedded", "config: {drain: {deadline: 1m}}", "(30) must be longer than config.drain.deadline (60s)"},
	{"a file that nothing mounts", "embedded", "config: {store: {url: 'redis://redis.example.com', password_file: /etc/countersign/files/redis/password}}",
		"config names /etc/countersign/files/redis/password, but files.redis is not there"},
	{"an application without a listener", "embedded", "tcp: {enabled: false}", "nobody could call it"},
	{"one port for two listeners", "embedded", "ports: {ops: 51051}", "ports.api and ports.ops are both 51051"},
	{"a proxy's questions that are not served", "embedded", "config: {ext_authz: {}, api: {serve: [verify]}}", "add check to config.api.serve"},
	{"a sidecar without a pod", "embedded", "mode: sidecar", "make this chart a dependency of yours and include `countersign.sidecar`"},
	{"an application included as a sidecar", "minimal", "countersign: {mode: application, config: {api: {danger_plaintext_beyond_loopback: true}}}",
		"an application is no sidecar"},
	{"a sidecar without a listener", "minimal", "countersign: {tcp: {enabled: false}, socket: {enabled: false}}", "nobody could call it"},
	{"a mount of a socket that is off", "minimal", "countersign: {socket: {enabled: false}}", "there is no socket to mount"},
	{"a policy for nobody's pods", "minimal", "countersign: {networkPolicy: {enabled: true}}", "set podSelector to your pods' labels"},
	{"a monitor of nobody's pods", "minimal", "countersign: {podMonitor: {enabled: true}}", "set podSelector to your pods' labels"},
	{"a misspelt setting of a dependency", "shop", "order: {soket: {enabled: true}}", "'soket' not allowed"},
}

func TestValuesThatAreWrongAreRefusedInWords(t *testing.T) {
	for place, one := range refusals {
		t.Run(one.name, func(t *testing.T) {
			// Not in the test's own directory: its name may have a comma, by which helm would split it.
			values := filepath.Join(scratch, "refused.yaml")
			write(t, values, one.values)
			rendered, err := run(append(arguments(one.chart), "--values", values)...)
			switch {
			case err == nil:
				t.Errorf("%d was taken:\n%s", place, rendered)
			case !strings.Contains(err.Error(), one.because):
				t.Errorf("refused, but not because of %q: %v", one.because, err)
			}
		})
	}
}
