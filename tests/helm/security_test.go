package helm

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const nobody = 65532

func TestInAServicesPodItIsANativeSidecarBeforeEverythingElse(t *testing.T) {
	for _, name := range []string{"minimal", "shop"} {
		for _, pod := range pods(t, name) {
			first := pod.spec.InitContainers[0]
			if first.Name != "countersign" || first.RestartPolicy == nil || *first.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				t.Errorf("%s: first comes %s, restarted %v", pod.name, first.Name, first.RestartPolicy)
			}
		}
	}
}

func TestOnItsOwnItIsAnOrdinaryContainer(t *testing.T) {
	for _, name := range []string{"application", "embedded"} {
		for _, pod := range pods(t, name) {
			if pod.sidecar || len(pod.spec.Containers) != 1 || pod.countersign.RestartPolicy != nil {
				t.Errorf("%s: sidecar %v, %d containers", pod.name, pod.sidecar, len(pod.spec.Containers))
			}
		}
	}
}

func TestTheServiceStartsOnceTheSidecarIsReady(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		isProbe(t, pod, pod.countersign.StartupProbe, "readiness")
		patience := pod.countersign.StartupProbe.PeriodSeconds * pod.countersign.StartupProbe.FailureThreshold
		if pod.countersign.StartupProbe.PeriodSeconds != 1 || patience < 60 {
			t.Errorf("asked every %d s, for %d s", pod.countersign.StartupProbe.PeriodSeconds, patience)
		}
	})
}

func TestReadinessAsksForReadiness(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) { isProbe(t, pod, pod.countersign.ReadinessProbe, "readiness") })
}

func TestLivenessAsksForLivenessAndNoDependency(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) { isProbe(t, pod, pod.countersign.LivenessProbe, "liveness") })
}

// The kubelet dials the pod's own address, in plaintext, at a port by number.
func isProbe(t *testing.T, pod pod, probe *corev1.Probe, service string) {
	t.Helper()
	switch {
	case probe == nil || probe.GRPC == nil || probe.GRPC.Service == nil:
		t.Errorf("no gRPC probe: %v", probe)
	case *probe.GRPC.Service != service:
		t.Errorf("asks for %s", *probe.GRPC.Service)
	case !listens.MatchString(configuration(t, pod)):
		t.Errorf("no listener to dial:\n%s", configuration(t, pod))
	case listens.FindStringSubmatch(configuration(t, pod))[1] != strconv.Itoa(int(probe.GRPC.Port)):
		t.Errorf("dials %d, and the listener is elsewhere:\n%s", probe.GRPC.Port, configuration(t, pod))
	}
}

// The ops listener, on every address of the pod.
var listens = regexp.MustCompile(`\nops:\n  address: '?(?:0\.0\.0\.0|\[::\]):(\d+)'?`)

func TestItRunsAsUserAndGroup65532(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		context := pod.countersign.SecurityContext
		if context.RunAsUser == nil || *context.RunAsUser != nobody || context.RunAsGroup == nil || *context.RunAsGroup != nobody {
			t.Errorf("runs as %v:%v", context.RunAsUser, context.RunAsGroup)
		}
	})
}

func TestItNeverRunsAsRoot(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) { is(t, pod.countersign.SecurityContext.RunAsNonRoot, true) })
}

func TestItsRootFileSystemIsReadOnly(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) { is(t, pod.countersign.SecurityContext.ReadOnlyRootFilesystem, true) })
}

func TestItCanGainNoPrivileges(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		is(t, pod.countersign.SecurityContext.AllowPrivilegeEscalation, false)
		is(t, pod.countersign.SecurityContext.Privileged, false)
	})
}

func TestItHasNoCapability(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		capabilities := pod.countersign.SecurityContext.Capabilities
		if !slices.Equal(capabilities.Drop, []corev1.Capability{"ALL"}) || len(capabilities.Add) != 0 {
			t.Errorf("drops %v, adds %v", capabilities.Drop, capabilities.Add)
		}
	})
}

func TestItsSystemCallsAreFiltered(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		if pod.countersign.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%v", pod.countersign.SecurityContext.SeccompProfile)
		}
	})
}

func TestNoServiceAccountTokenIsMounted(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) { is(t, pod.spec.AutomountServiceAccountToken, false) })
	for _, name := range []string{"application", "embedded"} {
		for _, one := range manifests(t, name) {
			if account, found := one.object.(*corev1.ServiceAccount); found {
				is(t, account.AutomountServiceAccountToken, false)
			}
		}
	}
}

func TestItAsksForLittleAndIsBounded(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		asked, most := pod.countersign.Resources.Requests, pod.countersign.Resources.Limits
		if asked.Cpu().MilliValue() == 0 || asked.Cpu().MilliValue() > 50 || asked.Memory().Value() == 0 || asked.Memory().Value() > 64<<20 {
			t.Errorf("asks for %v", asked)
		}
		if most.Cpu().IsZero() || most.Memory().IsZero() || most.Memory().Value() > 512<<20 {
			t.Errorf("is limited to %v", most)
		}
	})
}

func TestTheSocketIsInMemoryForTheGroupThatThePodHas(t *testing.T) {
	for _, name := range []string{"minimal", "shop"} {
		for _, pod := range pods(t, name) {
			if pod.name == "shop/demo-payment" {
				continue
			}
			volume := volume(t, pod, "countersign-socket")
			if volume.EmptyDir == nil || volume.EmptyDir.Medium != corev1.StorageMediumMemory || volume.EmptyDir.SizeLimit == nil {
				t.Errorf("%s: %v", pod.name, volume)
			}
			// It makes the directory below the volume itself, with mode 0770, and the socket with 0660, for this group.
			configured := configuration(t, pod)
			if !strings.Contains(configured, "  unix: /run/countersign/api/api.sock\n") || !strings.Contains(configured, "  unix_group: \"65532\"\n") {
				t.Errorf("%s: %s", pod.name, configured)
			}
			if pod.spec.SecurityContext == nil || pod.spec.SecurityContext.FSGroup == nil || *pod.spec.SecurityContext.FSGroup != nobody {
				t.Errorf("%s: %v", pod.name, pod.spec.SecurityContext)
			}
			if mounted := mount(pod.countersign, "countersign-socket"); mounted == nil || mounted.MountPath != "/run/countersign" || mounted.ReadOnly {
				t.Errorf("%s: %v", pod.name, mounted)
			}
			if mounted := mount(pod.spec.Containers[0], "countersign-socket"); mounted == nil || mounted.MountPath != "/run/countersign" || !mounted.ReadOnly {
				t.Errorf("%s: the service's is %v", pod.name, mounted)
			}
		}
	}
}

func TestTheServiceSeesNothingOfTheSidecarButItsSocket(t *testing.T) {
	for _, name := range []string{"minimal", "shop"} {
		for _, pod := range pods(t, name) {
			for _, container := range pod.spec.Containers {
				for _, mounted := range container.VolumeMounts {
					if mounted.Name != "countersign-socket" {
						t.Errorf("%s: %s mounts %s", pod.name, container.Name, mounted.Name)
					}
				}
			}
		}
	}
}

func TestConfigurationAndSecretsAreDirectoriesThatCanBeSwapped(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		for _, mounted := range pod.countersign.VolumeMounts {
			if mounted.SubPath != "" || mounted.SubPathExpr != "" {
				t.Errorf("%s is mounted by sub-path", mounted.Name)
			}
			if writable := mounted.Name == "countersign-socket" || mounted.Name == "countersign-data"; mounted.ReadOnly == writable {
				t.Errorf("%s: read-only is %v", mounted.Name, mounted.ReadOnly)
			}
		}
		volume := volume(t, pod, "countersign-config")
		if volume.ConfigMap == nil || volume.ConfigMap.Items != nil {
			t.Errorf("%v", volume)
		}
	})
}

func TestSecretsComeAsFilesForTheGroupAndNeverAsVariables(t *testing.T) {
	secrets := 0
	eachPod(t, func(t *testing.T, pod pod) {
		if len(pod.countersign.Env) != 0 || len(pod.countersign.EnvFrom) != 0 {
			t.Errorf("variables: %v %v", pod.countersign.Env, pod.countersign.EnvFrom)
		}
		for _, volume := range pod.spec.Volumes {
			if volume.Secret != nil {
				secrets++
				if *volume.Secret.DefaultMode != 0o440 {
					t.Errorf("%s has mode %o", volume.Name, *volume.Secret.DefaultMode)
				}
			}
		}
	})
	if secrets != 7 {
		t.Errorf("%d secrets were looked at", secrets)
	}
}

func TestNothingOfTheHostIsShared(t *testing.T) {
	eachPod(t, func(t *testing.T, pod pod) {
		if pod.spec.HostNetwork || pod.spec.HostPID || pod.spec.HostIPC {
			t.Error("a name space of the host")
		}
		for _, volume := range pod.spec.Volumes {
			if volume.HostPath != nil {
				t.Errorf("%s is a path of the host", volume.Name)
			}
		}
		for _, port := range pod.countersign.Ports {
			if port.HostPort != 0 {
				t.Errorf("%s is a port of the host", port.Name)
			}
		}
	})
}

func TestThePodsGraceIsLongerThanTheDrain(t *testing.T) {
	drains := map[string]time.Duration{"application": 40 * time.Second, "embedded": 20 * time.Second}
	for name, drain := range drains {
		for _, pod := range pods(t, name) {
			if grace := time.Duration(*pod.spec.TerminationGracePeriodSeconds) * time.Second; grace <= drain {
				t.Errorf("%s: %v of grace, %v of drain", pod.name, grace, drain)
			}
		}
	}
}

func TestAChangedConfigurationRestartsItsPods(t *testing.T) {
	seen := map[string]bool{}
	eachPod(t, func(_ *testing.T, pod pod) {
		if sum := pod.metadata.Annotations["checksum/countersign"]; sum != "" {
			seen[sum] = true
		}
	})
	if len(seen) != 5 {
		t.Errorf("%d sums over five configurations", len(seen))
	}
	changed := template(t, "embedded", "--set", "config.log.level=debug")
	for sum := range seen {
		if strings.Contains(changed, sum) {
			t.Errorf("another configuration has the sum %s", sum)
		}
	}
}

func TestANetworkPolicyLetsInAndOutWhatIsSaidAndNoMore(t *testing.T) {
	for _, one := range manifests(t, "application") {
		policy, found := one.object.(*networkingv1.NetworkPolicy)
		if !found {
			continue
		}
		if !selects(t, &policy.Spec.PodSelector, pods(t, "application")[0]) {
			t.Error("it doesn't select the pods")
		}
		if !slices.Equal(policy.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress", "Egress"}) {
			t.Errorf("types %v", policy.Spec.PolicyTypes)
		}
		var in, out []int
		for _, rule := range policy.Spec.Ingress {
			if len(rule.From) == 0 {
				t.Error("anyone gets in")
			}
			for _, port := range rule.Ports {
				in = append(in, port.Port.IntValue())
			}
		}
		for _, rule := range policy.Spec.Egress {
			if len(rule.To) == 0 {
				t.Error("it gets anywhere")
			}
			for _, port := range rule.Ports {
				out = append(out, port.Port.IntValue())
			}
		}
		// Metrics and callers; DNS by UDP and TCP, issuers, the store.
		if !slices.Equal(in, []int{9090, 50051}) || !slices.Equal(out, []int{53, 53, 443, 5432}) {
			t.Errorf("in %v, out %v", in, out)
		}
		return
	}
	t.Error("no policy")
}

func TestAPolicyWithoutPeersOpensNothing(t *testing.T) {
	rendered := template(t, "embedded", "--set", "networkPolicy.enabled=true", "--set-json", "networkPolicy.dns.peers=[]")
	if _, rules, _ := strings.Cut(rendered, "policyTypes: [Ingress, Egress]"); strings.Contains(strings.Split(rules, "\n---")[0], "port:") {
		t.Errorf("a rule without peers lets everyone: %s", rules)
	}
}

func TestTheShopsPoliciesSelectOneServiceEach(t *testing.T) {
	policies := 0
	for _, one := range manifests(t, "shop") {
		policy, found := one.object.(*networkingv1.NetworkPolicy)
		if !found {
			continue
		}
		policies++
		matched := 0
		for _, pod := range pods(t, "shop") {
			if selects(t, &policy.Spec.PodSelector, pod) {
				matched++
			}
		}
		if matched != 1 {
			t.Errorf("%s selects %d", policy.Name, matched)
		}
	}
	if policies != 3 {
		t.Errorf("%d policies", policies)
	}
}

func is(t *testing.T, found *bool, expected bool) {
	t.Helper()
	if found == nil || *found != expected {
		t.Errorf("not %v", expected)
	}
}

func selects(t *testing.T, selector *metav1.LabelSelector, pod pod) bool {
	t.Helper()
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return !parsed.Empty() && parsed.Matches(labels.Set(pod.metadata.Labels))
}

func volume(t *testing.T, pod pod, name string) corev1.Volume {
	t.Helper()
	for _, volume := range pod.spec.Volumes {
		if volume.Name == name {
			return volume
		}
	}
	t.Fatalf("%s has no volume %s", pod.name, name)
	return corev1.Volume{}
}

func mount(container corev1.Container, name string) *corev1.VolumeMount {
	for _, mounted := range container.VolumeMounts {
		if mounted.Name == name {
			return &mounted
		}
	}
	return nil
}

// What countersign in this pod reads: the ConfigMap that is mounted.
func configuration(t *testing.T, pod pod) string {
	t.Helper()
	named := volume(t, pod, "countersign-config").ConfigMap.Name
	for _, one := range manifests(t, strings.Split(pod.name, "/")[0]) {
		if found, is := one.object.(*corev1.ConfigMap); is && found.Name == named {
			return found.Data["countersign.yaml"]
		}
	}
	t.Fatalf("%s mounts %s, which nothing makes", pod.name, named)
	return ""
}
