package helm

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	podsecurity "k8s.io/pod-security-admission/api"
)

// A manifest, decoded with no field unknown and none said twice.
type manifest struct {
	kind   string
	object runtime.Object
	text   string
}

func manifests(t *testing.T, name string) []manifest {
	t.Helper()
	strict := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var found []manifest
	for text := range strings.SplitSeq(template(t, name), "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if kind.Kind == "" {
			continue
		}
		one := manifest{kind: kind.Kind, text: text}
		if kind.Kind != "PodMonitor" {
			object, _, err := strict.Decode([]byte(text), nil, nil)
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
			one.object = object
		}
		found = append(found, one)
	}
	return found
}

func TestEveryPodIsWithinTheRestrictedPodSecurityStandard(t *testing.T) {
	judge, err := evaluator()
	if err != nil {
		t.Fatal(err)
	}
	restricted := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	for _, name := range cases {
		for _, pod := range pods(t, name) {
			for _, result := range judge.EvaluatePod(restricted, &pod.metadata, &pod.spec) {
				if !result.Allowed {
					t.Errorf("%s: %s: %s", name, result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
		}
	}
}

// A pod that is asked for, and countersign in it.
type pod struct {
	name        string
	metadata    metav1.ObjectMeta
	spec        corev1.PodSpec
	countersign corev1.Container
	sidecar     bool
}

func pods(t *testing.T, name string) []pod {
	t.Helper()
	var found []pod
	for _, one := range manifests(t, name) {
		deployment, is := one.object.(*appsv1.Deployment)
		if !is {
			continue
		}
		asked := deployment.Spec.Template
		pod := pod{name: name + "/" + deployment.Name, metadata: asked.ObjectMeta, spec: asked.Spec}
		for _, container := range asked.Spec.Containers {
			if container.Name == "countersign" {
				pod.countersign = container
			}
		}
		for _, container := range asked.Spec.InitContainers {
			if container.Name == "countersign" {
				pod.countersign, pod.sidecar = container, true
			}
		}
		if pod.countersign.Name == "" {
			t.Fatalf("%s: no countersign in it", pod.name)
		}
		found = append(found, pod)
	}
	if len(found) == 0 {
		t.Fatalf("%s: no pod", name)
	}
	return found
}

// Judges every pod of every case.
func eachPod(t *testing.T, judge func(t *testing.T, pod pod)) {
	t.Helper()
	for _, name := range cases {
		for _, pod := range pods(t, name) {
			t.Run(pod.name, func(t *testing.T) { judge(t, pod) })
		}
	}
}
