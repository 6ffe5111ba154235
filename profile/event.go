package profile

import "time"

// EventKind says what an Event tells.
type EventKind string

const (
	EventBooting  EventKind = "booting"  // an engine is being started
	EventBooted   EventKind = "booted"   // and is there
	EventPlanned  EventKind = "planned"  // a category: Done of Total are measured already
	EventShot     EventKind = "shot"     // a shot is measured and on disk
	EventRetry    EventKind = "retry"    // a shot failed and will be tried again
	EventFailed   EventKind = "failed"   // a shot is set aside
	EventRedo     EventKind = "redo"     // the device drifted: Total shots are measured again
	EventCategory EventKind = "category" // a category is complete
	EventWrote    EventKind = "wrote"    // tables and meta.yaml are written
	EventStopping EventKind = "stopping" // the run was asked to end
	EventWarning  EventKind = "warning"
)

// Event is one thing that happened in a run.
type Event struct {
	Kind EventKind
	// Device is the one of several that it happened on (RunDevices); "" for the
	// only one, and for what concerns all. Done and Total count all devices'.
	Device   string
	TP       int
	Category Category
	Shape    string // of a shot
	// Done and Total count the shots of the event's tp and category.
	Done, Total int
	Message     string
	Elapsed     time.Duration // since the run began
}
