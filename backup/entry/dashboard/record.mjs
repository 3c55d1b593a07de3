// One record that a run changed: the old value beside the new one, column by column; what differs comes first.
import { api } from "./api.mjs";
import { textOf } from "./exact.mjs";
import { html } from "./html.mjs";
import { useLive } from "./live.mjs";
import { Live, Table, Value, Writing } from "./parts.mjs";
import { Restore } from "./take_back.mjs";
import { many, shown } from "./text.mjs";
import { useState } from "./vendor/hooks.mjs";

const HOUR = 3600;
const COLUMNS_AT_FIRST = 30;

export function RecordDiff({ run, change }) {
  const key = textOf(change.key);
  const live = useLive(() => api.record(run.syncId, key), ["record", run.syncId, key], HOUR);
  return html`<div class="record"><${Live} live=${live}>${(record) => html`<${Diff} run=${run} change=${change} record=${record} />`}<//></div>`;
}

function Diff({ run, change, record }) {
  const [all, setAll] = useState(false);
  const [restores, setRestores] = useState(false);
  const { old, new: now, laterRun } = record;
  const both = old && now;
  const rows = record.columns.map(({ name, differs }) => ({ name, old: valueIn(old, name), now: valueIn(now, name), tells: both ? differs : isThere(valueIn(old ?? now, name)) }));
  const telling = rows.filter((row) => row.tells);
  const rest = rows.filter((row) => !row.tells);
  const first = telling.slice(0, COLUMNS_AT_FIRST);
  const visible = all ? [...telling, ...rest] : first;
  const sides = [old && ["Before", "old"], now && [laterRun ? "After, until a later run" : "Now in the backup", "now"]].filter(Boolean);
  return html`
    ${sides.length === 0
      ? html`<p class="dim">The record was not there before the run, and is not there now.</p>`
      : html`<${Table} label="The record before and after the run" head=${["Column", ...sides.map(([label]) => label)]}>
        ${visible.map((row) => html`<tr key=${row.name} class=${both && row.tells ? "differs" : ""}>
          <th scope="row"><${Value} text=${row.name} clip=${120} /></th>
          ${sides.map(([label, side]) => html`<td data-label=${label}><div><${Cell} value=${row[side]} /></div></td>`)}
        </tr>`)}
      <//>`}
    ${both && telling.length === 0 && html`<p class="dim">No column differs.</p>`}
    <div class="row">
      ${visible.length < rows.length || all ? html`<button type="button" class="link" aria-expanded=${all} onClick=${() => setAll(!all)}>${all ? "Show fewer columns" : `Show all ${many(rows.length, "column")}`}</button>` : null}
      ${old && run.verb !== "restore" && html`<${Writing}><button type="button" class="small outline" onClick=${() => setRestores(true)}>Restore this record</button><//>`}
    </div>
    ${restores && html`<${Restore} run=${run} selection=${{ keys: [textOf(change.key)] }} onClose=${() => setRestores(false)} />`}`;
}

// A name may also be one that each object of JavaScript has, such as "constructor".
const valueIn = (record, name) => (record && Object.hasOwn(record, name) ? record[name] : undefined);
const isThere = (value) => value !== null && value !== undefined && value !== "";

function Cell({ value }) {
  if (value === undefined) return html`<span class="dim">not there</span>`;
  if (value === null) return html`<span class="dim">NULL</span>`;
  if (value === "") return html`<span class="dim">empty text</span>`;
  return html`<${Value} text=${shown(value)} clip=${300} />`;
}
