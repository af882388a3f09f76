//go:build newest

package helm

import (
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

func evaluator() (policy.Evaluator, error) {
	return policy.NewEvaluator(policy.DefaultChecks(), nil)
}

func TestAPodMonitorFindsThePodsAndTheirPort(t *testing.T) {
	for _, name := range []string{"application", "shop"} {
		judged := 0
		for _, one := range manifests(t, name) {
			if one.kind != "PodMonitor" {
				continue
			}
			var monitor monitoringv1.PodMonitor
			if err := yaml.UnmarshalStrict([]byte(one.text), &monitor); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, one.text)
			}
			matched := 0
			for _, pod := range pods(t, name) {
				if selects(t, &monitor.Spec.Selector, pod) {
					matched++
					endpoint := monitor.Spec.PodMetricsEndpoints[0]
					if endpoint.Port == nil || *endpoint.Port != portOf(pod, 9090) || endpoint.Path != "/metrics" {
						t.Errorf("%s: scrapes %v", pod.name, endpoint)
					}
				}
			}
			if matched != 1 {
				t.Errorf("%s: %s selects %d deployments", name, monitor.Name, matched)
			}
			judged++
		}
		if judged != len(pods(t, name)) {
			t.Errorf("%s: %d pod monitors", name, judged)
		}
	}
}

func portOf(pod pod, number int32) string {
	for _, port := range pod.countersign.Ports {
		if port.ContainerPort == number {
			return port.Name
		}
	}
	return ""
}
