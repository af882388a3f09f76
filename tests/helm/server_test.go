//go:build server

package helm

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/service"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
)

// What the API server has for a kind: where it is created, and how it is judged.
type endpoint struct {
	group, resource string
	strategy        rest.RESTCreateStrategy
}

var endpoints = map[string]endpoint{
	"ConfigMap":      {"", "configmaps", configmap.Strategy},
	"Deployment":     {"apps", "deployments", deployment.Strategy},
	"NetworkPolicy":  {"networking.k8s.io", "networkpolicies", networkpolicy.Strategy},
	"Service":        {"", "services", service.Strategy},
	"ServiceAccount": {"", "serviceaccounts", serviceaccount.Strategy},
}

func TestTheApiServerTakesEveryManifestAndWarnsOfNone(t *testing.T) {
	for _, name := range cases {
		for _, one := range manifests(t, name) {
			if one.object == nil {
				continue
			}
			warnings, err := create(t, one.kind, one.object)
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, one.text)
			}
			for _, warning := range warnings {
				t.Errorf("%s: %s\n%s", name, warning, one.text)
			}
		}
	}
}

func TestTheApiServerRefusesWhatIsWrong(t *testing.T) {
	wrongs := map[string]func(*corev1.PodSpec){
		"volumeMounts[0].name: Not found":                                         func(spec *corev1.PodSpec) { spec.Volumes = spec.Volumes[1:] },
		"livenessProbe: Forbidden":                                                func(spec *corev1.PodSpec) { spec.InitContainers[0].RestartPolicy = nil },
		"must be no more than 15 characters":                                      func(spec *corev1.PodSpec) { spec.InitContainers[0].Ports[0].Name += "-and-metrics" },
		"cannot set `allowPrivilegeEscalation` to false and `privileged` to true": escalate,
		"must be less than or equal to memory limit of":                           func(spec *corev1.PodSpec) { delete(spec.InitContainers[0].Resources.Limits, "cpu"); exceed(spec) },
	}
	for because, wrong := range wrongs {
		for _, one := range manifests(t, "minimal") {
			found, is := one.object.(*appsv1.Deployment)
			if !is {
				continue
			}
			wrong(&found.Spec.Template.Spec)
			if _, err := create(t, "Deployment", found); err == nil || !strings.Contains(err.Error(), because) {
				t.Errorf("refused, but not because of %q: %v", because, err)
			}
		}
	}
}

func escalate(spec *corev1.PodSpec) {
	privileged := true
	spec.InitContainers[0].SecurityContext.Privileged = &privileged
}

func exceed(spec *corev1.PodSpec) {
	resources := spec.InitContainers[0].Resources
	resources.Requests["memory"] = *resources.Limits.Memory()
	resources.Limits["memory"] = resource.MustParse("1Mi")
}

// What the API server does with an object before it is stored: its warnings, or why it refuses.
func create(t *testing.T, kind string, object runtime.Object) ([]string, error) {
	t.Helper()
	at, known := endpoints[kind]
	if !known {
		t.Fatalf("nobody judges a %s", kind)
	}
	stored := internal(t, object)
	accessor, err := meta.Accessor(stored)
	if err != nil {
		t.Fatal(err)
	}
	rest.FillObjectMetaSystemFields(accessor)
	if service, is := stored.(*core.Service); is && service.Spec.ClusterIP == core.ClusterIPNone {
		// Its allocator of addresses does this.
		service.Spec.ClusterIPs = []string{core.ClusterIPNone}
	}
	in := request.WithRequestInfo(request.WithNamespace(request.NewContext(), "verification"), &request.RequestInfo{
		IsResourceRequest: true, Verb: "create", Namespace: "verification", APIGroup: at.group, APIVersion: "v1", Resource: at.resource,
	})
	if err := rest.BeforeCreate(at.strategy, in, stored); err != nil {
		return nil, err
	}
	return at.strategy.WarningsOnCreate(in, stored), nil
}

// As the API server has it: defaults filled in, of no version.
func internal(t *testing.T, object runtime.Object) runtime.Object {
	t.Helper()
	copied := object.DeepCopyObject()
	legacyscheme.Scheme.Default(copied)
	group := object.GetObjectKind().GroupVersionKind().Group
	converted, err := legacyscheme.Scheme.ConvertToVersion(copied,
		schema.GroupVersion{Group: group, Version: runtime.APIVersionInternal})
	if err != nil {
		t.Fatal(err)
	}
	return converted
}
