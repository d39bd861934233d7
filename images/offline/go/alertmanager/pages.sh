#!/usr/bin/env bash
# In place of Alertmanager's web pages, which need packages that only Elm's own registry has. Run in a copy of the module.
set -euo pipefail
mkdir -p ui/app/dist
gzip -n >ui/app/dist/index.html.gz <<'HTML'
<!doctype html>
<html lang="en">
<title>Alertmanager</title>
<p>This Alertmanager was built without its web pages. Prometheus shows the alerts under /alerts,
and <a href="api/v2/alerts">the API</a> those that have arrived here.</p>
</html>
HTML
