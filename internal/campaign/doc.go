// Package campaign reads campaign files, which name the bundles that a team
// wants (hardware x models x variants, at some tensor-parallel degrees, by one
// plan), and writes what the scheduler that the team has takes to measure them:
// Slurm array scripts, Kubernetes Indexed Jobs, or plain commands. It schedules
// nothing itself and knows no driver; what a flag means is its caller's.
package campaign
