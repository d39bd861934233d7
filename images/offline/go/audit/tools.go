//go:build tools

// What `make audit` looks at Go modules with.
package audit

import _ "golang.org/x/vuln/cmd/govulncheck"
