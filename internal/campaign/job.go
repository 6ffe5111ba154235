package campaign

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Job is one bundle to measure, by a number of shards that run apart.
type Job struct {
	campaign *Campaign
	Hardware *Hardware
	Model    *Model
	Variant  *Variant
	TPs      []int    // ascending
	Flags    []Option // of profile run, but for those that Args adds
	// Shards is the number of parts; Needed lists those that have something left
	// to measure. A caller that knows sets both; else Shards is the campaign's,
	// and all of them are needed.
	Shards int
	Needed []int
	// Dir is the bundle's folder, where a caller knows it.
	Dir string
}

// Jobs lists the campaign's bundles, hardware by hardware.
func (c *Campaign) Jobs() []*Job {
	var jobs []*Job
	for i := range c.Hardware {
		for j := range c.Models {
			for k := range c.Variants {
				h, m, v := &c.Hardware[i], &c.Models[j], &c.Variants[k]
				if c.excluded(h, m, v) {
					continue
				}
				job := &Job{campaign: c, Hardware: h, Model: m, Variant: v}
				_, tps := job.listedTPs()
				job.TPs = slices.Sorted(slices.Values(tps))
				var arguments []Option
				for _, s := range []*Settings{&c.Settings, &h.Settings, &m.Settings, &v.Settings} {
					job.Flags = overlay(job.Flags, s.Flags)
					arguments = overlay(arguments, s.EngineArgs)
				}
				for _, a := range arguments {
					job.Flags = append(job.Flags, Option{"engine-arg", a.Name + "=" + a.Value, a.Path})
				}
				job.SetShards(max(c.Shards, 1))
				jobs = append(jobs, job)
			}
		}
	}
	return jobs
}

func (c *Campaign) excluded(h *Hardware, m *Model, v *Variant) bool {
	return slices.ContainsFunc(c.Exclude, func(s Selection) bool { return s.matches(h, m, v) })
}

func (s Selection) matches(h *Hardware, m *Model, v *Variant) bool {
	matches := func(pattern, name string) bool { return pattern == "" || pattern == name }
	return matches(s.Hardware, h.Name) && matches(s.Model, m.ID) && matches(s.Variant, v.Name)
}

// overlay is base with over's values in place of those of the same names.
func overlay(base, over []Option) []Option {
	out := slices.Clone(base)
	for _, o := range over {
		if i := slices.IndexFunc(out, func(b Option) bool { return b.Name == o.Name }); i >= 0 {
			out[i] = o
		} else {
			out = append(out, o)
		}
	}
	return out
}

// SetShards divides the job in n parts, all of them needed.
func (j *Job) SetShards(n int) {
	j.Shards, j.Needed = n, nil
	for i := range n {
		j.Needed = append(j.Needed, i)
	}
}

// Name is short and fit for a file or an object of a cluster.
func (j *Job) Name() string {
	parts := []string{j.Hardware.Name, path.Base(strings.TrimSuffix(j.Model.ID, "/config.json"))}
	if j.Variant.Name != "" {
		parts = append(parts, j.Variant.Name)
	}
	return strings.Join(parts, "-")
}

// Args are the arguments of profile run for one shard, whose index may be a
// placeholder.
func (j *Job) Args(index string) []string {
	c := j.campaign
	var tps []string
	for _, tp := range j.TPs {
		tps = append(tps, strconv.Itoa(tp))
	}
	args := []string{"run", "--model", j.Model.ID, "--hardware", j.Hardware.Name}
	if j.Variant.Name != "" {
		args = append(args, "--variant", j.Variant.Name)
	}
	args = append(args, "--tp", strings.Join(tps, ","), "--out", c.Out)
	for _, f := range j.Flags {
		args = append(args, "--"+f.Name+"="+f.Value)
	}
	if c.Budget > 0 {
		args = append(args, "--budget", c.Budget.String())
	}
	return append(args, "--shard", fmt.Sprintf("%s/%d", index, j.Shards))
}
