#!/usr/bin/env bash
# Holds the dashboard against Grafana's own types: the dashboard's, and for each panel those of its options and of its fields.
#
#   bash docs/grafana/check.sh
#
# Needs node with npm, which fetches Grafana's types (@grafana/schema) and a compiler into a throw-away directory. It says nothing
# of how a panel looks; that its queries name metrics that there are is tested by `cargo test -p stockade-supervisor --lib metrics`.
set -euo pipefail
readonly schema=13.2.3 typescript=5.9.3
dashboard=$(dirname "$(readlink -f "$0")")/stockade.json
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
cd "$scratch"
echo '{ "private": true }' >package.json
npm install --silent --no-audit --no-fund "@grafana/schema@$schema" "typescript@$typescript"

# Written as values of those types: what a type doesn't have is an error, as is what it has otherwise. Enumerations are by value.
DASHBOARD=$dashboard node >check.ts <<'JS'
const { existsSync, readFileSync } = require('node:fs');
const types = './node_modules/@grafana/schema/dist/types/raw';
const { panels, ...rest } = JSON.parse(readFileSync(process.env.DASHBOARD));
const lines = [
  'type Plain<T> = T extends string ? `${T}` : T extends number | boolean | undefined | null ? T',
  '  : T extends (infer U)[] ? Plain<U>[] : { [K in keyof T]?: Plain<T[K]> };',
  `import type { Dashboard, Panel, RowPanel } from '${types}/dashboard/x/types.gen';`,
  `const dashboard: Plain<Dashboard> = ${JSON.stringify(rest)};`,
];
let checked = 0;
panels.forEach((panel, at) => {
  lines.push(`const panel${at}: Plain<${panel.type === 'row' ? 'RowPanel' : 'Panel'}> = ${JSON.stringify(panel)};`);
  if (panel.type === 'row') return;
  const own = `${types}/composable/${panel.type}/panelcfg/x/types.gen`;
  if (!existsSync(`${own}.d.ts`)) throw new Error(`Grafana has no panel ${panel.type}`);
  lines.push(`const options${at}: Plain<import('${own}').Options> = ${JSON.stringify(panel.options ?? {})};`);
  const custom = panel.fieldConfig?.defaults?.custom;
  if (custom) lines.push(`const fields${at}: Plain<import('${own}').FieldConfig> = ${JSON.stringify(custom)};`);
  checked += 1;
});
if (checked === 0) throw new Error('the dashboard has no panels');
console.error(`${checked} panels, against Grafana's types`);
console.log(lines.join('\n'));
JS
npx --no-install tsc --noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler --target es2022 check.ts
echo "the dashboard is one"
