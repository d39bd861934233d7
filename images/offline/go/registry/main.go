// The registry of github.com/distribution/distribution, with its storage in a folder alone: the drivers of three clouds,
// and what traces requests, are most of what upstream's program takes to build.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// registry serve FILE, as upstream: REGISTRY_* variables replace what the file says.
func main() {
	if len(os.Args) != 3 || os.Args[1] != "serve" {
		log.Fatal("usage: registry serve FILE")
	}
	file, err := os.Open(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	config, err := configuration.Parse(file)
	if err != nil {
		log.Fatalf("%s: %v", os.Args[2], err)
	}
	log.Fatal(http.ListenAndServe(config.HTTP.Addr, handlers.NewApp(context.Background(), config)))
}
