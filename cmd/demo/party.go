package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

type partyCommand struct {
	Path    string `help:"The folder to load; Go's own source tree if not given." placeholder:"FOLDER"`
	Workers int    `default:"4" help:"Processes on the one directory."`
	Kills   int    `default:"6" help:"How many times the process that leads is killed."`
}

func (c *partyCommand) Validate() error {
	if c.Workers < 1 || c.Kills < 0 {
		return errors.New("--workers must be at least 1 and --kills not negative")
	}
	if c.Workers < 2 && c.Kills > 0 {
		return errors.New("--kills needs --workers of at least 2: somebody must be left to lead")
	}
	return nil
}

func (c *partyCommand) Run(s *session) (err error) {
	path, err := c.folder()
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "pebbleparty-demo-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && !errors.Is(err, errInterrupted) {
			fmt.Printf("kept for a look: %s\n", temp)
			return
		}
		err = errors.Join(err, os.RemoveAll(temp))
	}()
	files, err := listFolder(path, temp)
	if err != nil {
		return err
	}
	tasks, err := divide(files.files)
	if err != nil {
		return err
	}
	dir := filepath.Join(temp, "db")
	fmt.Printf("%s: %d files, %s. %d processes load it into %s; %d times the one that leads is killed.\n",
		path, len(files.files), megabytes(files.size), c.Workers, dir, c.Kills)
	j := newJob(s, *c, dir, files, tasks)
	return j.run()
}

func (c *partyCommand) folder() (string, error) {
	if c.Path != "" {
		return filepath.Abs(c.Path)
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT, to find Go's source tree (--path names another folder): %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(goroot)), "src"), nil
}
