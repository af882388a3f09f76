//go:build !newest

package helm

import "k8s.io/pod-security-admission/policy"

func evaluator() (policy.Evaluator, error) {
	return policy.NewEvaluator(policy.DefaultChecks())
}
