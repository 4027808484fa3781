package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"gopkg.in/yaml.v3"
)

// workload is what of Kubernetes' batch/v1 Job and core/v1 Pod the example
// uses: a key that isn't here is one that somebody misspelt, or must add.
type workload struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       struct {
		AccessModes []string `yaml:"accessModes"`
		Resources   resources

		CompletionMode       string `yaml:"completionMode"`
		Completions          int
		Parallelism          int
		BackoffLimitPerIndex int `yaml:"backoffLimitPerIndex"`
		PodFailurePolicy     struct {
			Rules []struct {
				Action          string
				OnPodConditions []struct{ Type, Status string } `yaml:"onPodConditions"`
				OnExitCodes     struct {
					ContainerName string `yaml:"containerName"`
					Operator      string
					Values        []int
				} `yaml:"onExitCodes"`
			}
		} `yaml:"podFailurePolicy"`
		Template struct {
			Spec struct {
				RestartPolicy                 string `yaml:"restartPolicy"`
				TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
				AutomountServiceAccountToken  bool   `yaml:"automountServiceAccountToken"`
				EnableServiceLinks            bool   `yaml:"enableServiceLinks"`
				SecurityContext               struct {
					RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
					RunAsUser      int                   `yaml:"runAsUser"`
					RunAsGroup     int                   `yaml:"runAsGroup"`
					FSGroup        int                   `yaml:"fsGroup"`
					SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
				} `yaml:"securityContext"`
				Containers []struct {
					Name, Image string
					Args        []string
					Env         []struct{ Name, Value string }
					Ports       []struct {
						Name          string
						ContainerPort int `yaml:"containerPort"`
					}
					LivenessProbe struct {
						HTTPGet          struct{ Path, Port string } `yaml:"httpGet"`
						PeriodSeconds    int                         `yaml:"periodSeconds"`
						FailureThreshold int                         `yaml:"failureThreshold"`
					} `yaml:"livenessProbe"`
					Resources       resources
					SecurityContext struct {
						AllowPrivilegeEscalation bool `yaml:"allowPrivilegeEscalation"`
						ReadOnlyRootFilesystem   bool `yaml:"readOnlyRootFilesystem"`
						Capabilities             struct{ Drop []string }
					} `yaml:"securityContext"`
					VolumeMounts []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
						ReadOnly  bool   `yaml:"readOnly"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
					Secret    struct {
						SecretName string `yaml:"secretName"`
					} `yaml:"secret"`
					PersistentVolumeClaim struct {
						ClaimName string `yaml:"claimName"`
					} `yaml:"persistentVolumeClaim"`
					EmptyDir struct {
						SizeLimit string `yaml:"sizeLimit"`
					} `yaml:"emptyDir"`
				}
			}
		}
	}
}

type resources struct{ Requests, Limits map[string]string }

// composeFile is what of the Compose specification the example uses.
type composeFile struct {
	Name     string
	Services map[string]struct {
		Image, Build, User, Restart string
		Command                     []string
		Environment                 map[string]string
		Secrets, Ports, Volumes     []string
		ReadOnly                    bool `yaml:"read_only"`
		Tmpfs                       []string
		CapDrop                     []string `yaml:"cap_drop"`
		SecurityOpt                 []string `yaml:"security_opt"`
		StopGracePeriod             string   `yaml:"stop_grace_period"`
	}
	Secrets map[string]struct{ File string }
}

// strictly decodes YAML documents; an unknown key is an error.
func strictly[T any](t *testing.T, path string) (all []T) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	for {
		var v T
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, v)
	}
}

// TestManifests holds the examples for machines against each other and the
// Dockerfile: who copies them relies on what their comments say.
func TestManifests(t *testing.T) {
	t.Parallel()
	docker, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	needs(t, string(docker), "\nUSER 65532:65532\n", "\nSTOPSIGNAL SIGTERM\n", "\nFROM scratch\n", "RUN .ci/image /image\n")

	all := strictly[workload](t, "../../examples/kubernetes/job.yaml")
	if len(all) != 2 || all[0].Kind != "PersistentVolumeClaim" || all[1].Kind != "Job" {
		t.Fatalf("%d documents", len(all))
	}
	pod := &all[1].Spec.Template.Spec
	c := &pod.Containers[0]
	if pod.RestartPolicy != "Never" || pod.TerminationGracePeriodSeconds <= 10 || !pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.RunAsUser != 65532 ||
		!c.SecurityContext.ReadOnlyRootFilesystem || c.SecurityContext.AllowPrivilegeEscalation {
		t.Errorf("the pod isn't what the Dockerfile promises: %+v", pod)
	}
	if rules := all[1].Spec.PodFailurePolicy.Rules; len(rules) != 2 || rules[1].OnExitCodes.ContainerName != c.Name {
		t.Errorf("%+v", rules)
	}
	mounted := map[string]bool{}
	for _, v := range pod.Volumes {
		mounted[v.Name] = true
	}
	for _, m := range c.VolumeMounts {
		if !mounted[m.Name] {
			t.Errorf("there is no volume %s", m.Name)
		}
	}
	if c.Ports[0].Name != c.LivenessProbe.HTTPGet.Port || c.LivenessProbe.HTTPGet.Path != "/healthz" {
		t.Errorf("the probe asks elsewhere: %+v", c.LivenessProbe)
	}

	s := strictly[composeFile](t, "../../examples/container/compose.yaml")[0].Services["mailhaul"]
	if !s.ReadOnly || s.User != "65532:65532" || s.StopGracePeriod != "30s" || len(s.Tmpfs) != 1 {
		t.Errorf("%+v", s)
	}
}

// TestUnits has the service end the command as it wants to be ended.
func TestUnits(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../examples/systemd/mailhaul.service")
	if err != nil {
		t.Fatal(err)
	}
	needs(t, string(b), "\nKillMode=mixed\n", "\nTimeoutStopSec=30\n", "\nSuccessExitStatus=3 75\n", "\nDynamicUser=yes\n", "\nLoadCredential=password:")
}
