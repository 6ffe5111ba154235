package perfio

import "gopkg.in/yaml.v3"

// Meta is meta.yaml. Fields that this package uses are typed; everything else
// that the file holds is kept and written again.
type Meta struct {
	// Root is the document's top mapping as it was read; Get and Set work on it.
	Root *yaml.Node
}
