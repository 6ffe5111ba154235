package campaign

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxArray is how many jobs one array has at most: Slurm's own default limit of
// an index is 1000.
const maxArray = 1000

// slurm writes an sbatch script for each kind of hardware, an array with a
// shard a job.
func (c *Campaign) slurm(jobs []*Job) []File {
	var files []File
	for _, group := range c.byHardware(jobs) {
		var commands [][]string
		for _, j := range group {
			for _, i := range j.Needed {
				commands = append(commands, j.Args(strconv.Itoa(i)))
			}
		}
		name := c.Name + "-" + group[0].Hardware.Name
		for part, some := range slices.Collect(slices.Chunk(commands, maxArray)) {
			numbered := name
			if len(commands) > maxArray {
				numbered = fmt.Sprintf("%s-%d", name, part+1)
			}
			files = append(files, File{Name: numbered + ".sbatch", Text: c.array(numbered, group[0].Hardware, some), Executable: true})
		}
	}
	return files
}

func (c *Campaign) array(name string, h *Hardware, commands [][]string) string {
	array := fmt.Sprintf("0-%d", len(commands)-1)
	if c.Parallel > 0 {
		array += fmt.Sprintf("%%%d", c.Parallel)
	}
	options := overlay([]Option{
		{Name: "job-name", Value: name}, {Name: "output", Value: name + "-%a.log"}, {Name: "open-mode", Value: "append"},
		{Name: "signal", Value: "B:USR1@120"},
	}, overlay(c.Slurm, h.Slurm))
	options = append(options, Option{Name: "array", Value: array}, Option{Name: "requeue"})
	var b strings.Builder
	b.WriteString("#!/bin/bash\n" + c.written(fmt.Sprintf(arrayOf, len(commands), h.Name)))
	for _, o := range options {
		b.WriteString("#SBATCH --" + o.Name)
		if o.Value != "" {
			b.WriteString("=" + quote(o.Value))
		}
		b.WriteByte('\n')
	}
	b.WriteString("set -u\n\ncase $SLURM_ARRAY_TASK_ID in\n")
	for i, args := range commands {
		fmt.Fprintf(&b, "%d) set -- %s ;;\n", i, quoted(args))
	}
	b.WriteString("*) echo \"there is no job $SLURM_ARRAY_TASK_ID\" >&2; exit 2 ;;\nesac\n\n")
	fmt.Fprintf(&b, slurmBody, quote(c.Program), c.Attempts-1) // the first start is no restart
	return b.String()
}

// slurmBody runs the job's command: what is to end it reaches it as a signal
// upon which it finishes the shot in flight and ends with 3.
const slurmBody = `child= signalled=
trap 'signalled=1; [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null' USR1 TERM
%s "$@" &
child=$!
[ -z "$signalled" ] || kill -USR1 "$child" # a signal that came before
# A signal cuts a wait short, and bash may give that signal once more at the next:
# only what is asked after the end, the second time, is the program's status.
while kill -0 "$child" 2>/dev/null; do wait "$child"; done
wait "$child"
wait "$child"
status=$?

# 3: ended early. Above 128: killed. Either goes on where it was.
if { [ "$status" = 3 ] || [ "$status" -gt 128 ]; } && [ "${SLURM_RESTART_COUNT:-0}" -lt %d ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
`
