#!/usr/bin/env bash
# Prometheus' web pages, which its Go module has as sources only. Run in a copy of that module, as upstream's
# `make assets-compress` is, but for the old pages, which are off by default, and the checks of types.
set -euo pipefail
mkdir -p pnpm
cp "$(dirname "$0")"/package*.json pnpm/
npm ci --prefix pnpm --ignore-scripts
export PATH=$PWD/pnpm/node_modules/.bin:$PATH

cd web/ui
# The registry lacks version 9.7.2 of this package; it highlights the configuration.
sed -i.orig '/@mantine\/code-highlight/ {
  s/@9\.7\.2/@9.6.2/
  s/"^9\.7\.2"/"9.6.2"/
  n
  s/specifier: ^9\.7\.2/specifier: 9.6.2/
  s|sha512-[^}]*|sha512-lEtpNTvLeKB0UKn/f6iH8NKwUtn++Otfg0KCTsIf9ThpSAwkexBTxuo5mDr4UwljalHRIAmFi9otdQ82l6ecYA==|
  n
  s/version: 9\.7\.2/version: 9.6.2/
}' pnpm-lock.yaml mantine-ui/package.json
CI=1 pnpm install --frozen-lockfile --ignore-scripts
bash build_ui.sh --build-module
(cd mantine-ui && pnpm exec vite build)
rm -rf static
mkdir static
mv mantine-ui/dist static/mantine-ui
cd ../..
bash scripts/compress_assets.sh
