package campaign

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// over is k with over's values where it has any.
func (k Kubernetes) over(over Kubernetes) Kubernetes {
	k.Namespace = cmp.Or(over.Namespace, k.Namespace)
	k.Image = cmp.Or(over.Image, k.Image)
	k.Claim = cmp.Or(over.Claim, k.Claim)
	k.Storage = cmp.Or(over.Storage, k.Storage)
	k.StorageClass = cmp.Or(over.StorageClass, k.StorageClass)
	k.AccessMode = cmp.Or(over.AccessMode, k.AccessMode)
	k.Mount = cmp.Or(over.Mount, k.Mount)
	k.GPUResource = cmp.Or(over.GPUResource, k.GPUResource)
	k.GPUs = cmp.Or(over.GPUs, k.GPUs)
	k.NodeSelector = overlay(k.NodeSelector, over.NodeSelector)
	k.Secret = cmp.Or(over.Secret, k.Secret)
	k.GracePeriod = cmp.Or(over.GracePeriod, k.GracePeriod)
	if over.Pod != nil {
		k.Pod = over.Pod
	}
	return k
}

// kubernetes writes a manifest for each kind of hardware: the claim that the
// bundles stand on, and an Indexed Job for each bundle with a shard a pod.
func (c *Campaign) kubernetes(jobs []*Job) ([]File, error) {
	defaults := Kubernetes{
		Claim: objectName(c.Name), AccessMode: "ReadWriteMany", Mount: "/campaign",
		GPUResource: "nvidia.com/gpu", GPUs: 1, GracePeriod: DefaultGracePeriod,
	}
	var files []File
	names := make(map[string]string)
	for _, group := range c.byHardware(jobs) {
		h := group[0].Hardware
		k := defaults.over(c.Kubernetes).over(h.Kubernetes)
		if k.Image == "" {
			return nil, fmt.Errorf("%s: kubernetes.image: is missing, expected an image that has %s", c.File, c.Program)
		}
		if !k.claimed(c.Out) {
			return nil, c.Problem("out", fmt.Errorf("found %q, expected a folder within %s, where pods have the claim (kubernetes.mount): what they write elsewhere is gone with them", c.Out, k.Mount))
		}
		var b strings.Builder
		b.WriteString(c.written(fmt.Sprintf(manifestOf, len(group), h.Name)))
		encoder := yaml.NewEncoder(&b)
		encoder.SetIndent(2)
		var objects []any
		if k.Storage != "" {
			objects = append(objects, k.claim())
		}
		for _, j := range group {
			name := objectName(c.Name + "-" + j.Name())
			if other, ok := names[name]; ok {
				return nil, fmt.Errorf("%s: %s and %s would both be the job %s", c.File, other, j.Name(), name)
			}
			names[name] = j.Name()
			object, err := k.job(c, j, name)
			if err != nil {
				return nil, err
			}
			objects = append(objects, object)
		}
		for _, object := range objects {
			if err := encoder.Encode(object); err != nil {
				return nil, err
			}
		}
		if err := encoder.Close(); err != nil {
			return nil, err
		}
		files = append(files, File{Name: c.Name + "-" + h.Name + ".yaml", Text: b.String()})
	}
	return files, nil
}

// object is a mapping that is written in its order.
type object []entry

type entry struct {
	key   string
	value any
}

// MarshalYAML implements yaml.Marshaler. Entries without a value are left out.
func (o object) MarshalYAML() (any, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, e := range o {
		if e.value == nil || e.value == "" {
			continue
		}
		value := new(yaml.Node)
		if given, ok := e.value.(*yaml.Node); ok {
			value = given
		} else if err := value.Encode(e.value); err != nil {
			return nil, err
		}
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: e.key}, value)
	}
	return n, nil
}

func (k *Kubernetes) metadata(name string, labels any) object {
	return object{{"name", name}, {"namespace", k.Namespace}, {"labels", labels}}
}

func (k *Kubernetes) claim() object {
	return object{
		{"apiVersion", "v1"}, {"kind", "PersistentVolumeClaim"}, {"metadata", k.metadata(k.Claim, nil)},
		{"spec", object{
			{"accessModes", []string{k.AccessMode}}, {"storageClassName", k.StorageClass},
			{"resources", object{{"requests", object{{"storage", k.Storage}}}}},
		}},
	}
}

// job is an Indexed Job: its pods' indexes are the shards. A pod that ended
// early, or was killed, is followed by another one of its index; wrong usage and
// another environment are not what a second attempt would mend.
func (k *Kubernetes) job(c *Campaign, j *Job, name string) (object, error) {
	labels := object{{"app.kubernetes.io/part-of", labelValue(c.Name)}, {"app.kubernetes.io/component", "profile"}}
	container := object{
		{"name", "profile"}, {"image", k.Image}, {"workingDir", k.Mount}, {"command", []string{c.Program}},
		{"args", escaped(j.Args("\x00"))},
		{"volumeMounts", []object{{{"name", "campaign"}, {"mountPath", k.Mount}}}},
	}
	if k.GPUs > 0 {
		container = append(container, entry{"resources", object{{"limits", object{{k.GPUResource, k.GPUs}}}}})
	}
	if k.Secret != "" {
		container = append(container, entry{"envFrom", []object{{{"secretRef", object{{"name", k.Secret}}}}}})
	}
	pod := object{
		{"restartPolicy", "Never"}, {"terminationGracePeriodSeconds", int(k.GracePeriod.Seconds())},
		{"containers", []object{container}},
		{"volumes", []object{{{"name", "campaign"}, {"persistentVolumeClaim", object{{"claimName", k.Claim}}}}}},
	}
	if len(k.NodeSelector) > 0 {
		var selector object
		for _, o := range k.NodeSelector {
			selector = append(selector, entry{o.Name, o.Value})
		}
		pod = append(pod, entry{"nodeSelector", selector})
	}
	if k.Pod != nil {
		for i := 0; i+1 < len(k.Pod.Content); i += 2 {
			key := k.Pod.Content[i]
			if slices.ContainsFunc(pod, func(e entry) bool { return e.key == key.Value }) {
				return nil, fmt.Errorf("%s:%d:%d: kubernetes.pod.%s: the campaign says this itself", c.File, key.Line, key.Column, key.Value)
			}
			pod = append(pod, entry{key.Value, k.Pod.Content[i+1]})
		}
	}
	parallel := j.Shards
	if c.Parallel > 0 {
		parallel = min(parallel, c.Parallel)
	}
	if j.Shards > maxCompletions {
		return nil, errors.New(name + ": too many shards for one Indexed Job")
	}
	return object{
		{"apiVersion", "batch/v1"}, {"kind", "Job"}, {"metadata", k.metadata(name, labels)},
		{"spec", object{
			{"completionMode", "Indexed"}, {"completions", j.Shards}, {"parallelism", parallel},
			{"backoffLimitPerIndex", c.Attempts - 1}, {"maxFailedIndexes", j.Shards},
			{"podFailurePolicy", object{{"rules", []object{
				{{"action", "Ignore"}, {"onPodConditions", []object{{{"type", "DisruptionTarget"}, {"status", "True"}}}}},
				{{"action", "FailIndex"}, {"onExitCodes", object{{"containerName", "profile"}, {"operator", "In"}, {"values", []int{2, 4}}}}},
			}}}},
			{"template", object{{"metadata", object{{"labels", labels}}}, {"spec", pod}}},
		}},
	}, nil
}

// claimed says whether a folder, as pods have it, is on the claim.
func (k *Kubernetes) claimed(folder string) bool {
	if !path.IsAbs(folder) {
		folder = path.Join(k.Mount, folder)
	}
	mount := strings.TrimSuffix(path.Clean(k.Mount), "/")
	return strings.HasPrefix(path.Clean(folder)+"/", mount+"/")
}

// maxCompletions is what the API takes for jobs with a limit by index.
const maxCompletions = 100_000

// escaped are arguments as a container has them: $(NAME) there stands for an
// environment variable, and $$ for a dollar. The placeholder of the shard's index
// becomes the variable that an Indexed Job's pods have.
func escaped(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		arg = strings.ReplaceAll(arg, "$", "$$")
		out[i] = strings.ReplaceAll(arg, "\x00", "$(JOB_COMPLETION_INDEX)")
	}
	return out
}

// objectName makes a name that the API takes, at most 52 characters so that
// pods' names fit behind it.
func objectName(text string) string {
	const most = 52
	lower := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, text), "-")
	if len(lower) > most {
		sum := sha256.Sum256([]byte(text))
		lower = strings.TrimRight(lower[:most-9], "-") + "-" + hex.EncodeToString(sum[:4])
	}
	return lower
}

// labelValue is at most 63 characters that begin and end with a letter or digit.
func labelValue(text string) string {
	if len(text) > 63 {
		text = text[:63]
	}
	return strings.TrimRight(text, "-._")
}
