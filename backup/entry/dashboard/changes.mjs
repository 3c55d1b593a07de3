// What a run did to records, a page at a time, from the recycle bin; and a restore of one, of some, or of all it deleted.
import { api } from "./api.mjs";
import { Choose, useChosen } from "./bulk.mjs";
import { textOf } from "./exact.mjs";
import { html } from "./html.mjs";
import { useLive } from "./live.mjs";
import { Live, Name, Section, Work, Writing } from "./parts.mjs";
import { sayRefused } from "./queued.mjs";
import { RecordDiff } from "./record.mjs";
import { route, setFilters } from "./route.mjs";
import { useStore } from "./store.mjs";
import { Restore } from "./take_back.mjs";
import { keyText, many, number } from "./text.mjs";
import { useState } from "./vendor/hooks.mjs";

const PAGE = 25;
const KINDS = ["deleted", "updated", "inserted"];
const HOUR = 3600;

export function Changes({ run }) {
  const { filters } = useStore(route);
  const only = KINDS.includes(filters.only) ? filters.only : "";
  const ask = (cursor) => api.changes(run.syncId, { only, limit: PAGE, cursor });
  const live = useLive(() => ask(), ["changes", run.syncId, only], HOUR);
  const [rest, setRest] = useState({ of: null, changes: [], cursor: null });
  const of = `${run.syncId} ${only}`;
  const later = rest.of === of ? rest : { changes: [], cursor: live.data?.cursor ?? null };
  const all = [...(live.data?.changes ?? []), ...later.changes];
  const chosen = useChosen(all.filter((change) => change.change !== "Inserted").map((change) => textOf(change.key)));
  const more = async () => {
    try {
      const page = await ask(later.cursor);
      setRest({ of, changes: [...later.changes, ...page.changes], cursor: page.cursor });
    } catch (error) {
      sayRefused(error);
    }
  };
  return html`<${Section} id="changes" title="What it did to records" aside=${html`<${Restores} run=${run} chosen=${chosen} />`}>
    <div class="tabs" role="group" aria-label="Which changes">
      ${["", ...KINDS].map((kind) => html`<button type="button" key=${kind} class="small ${only === kind ? "" : "outline"}" aria-pressed=${only === kind}
        onClick=${() => setFilters({ only: kind }, false)}>${kind ? `${number(run.counts[kind] ?? 0)} ${kind}` : "All"}</button>`)}
    </div>
    <${Live} live=${live}>
      ${(page) => html`
        ${page.mayBePurged && html`<p class="dim">The run is older than the recycle bin keeps records: some of its changes may be gone.</p>`}
        ${all.length === 0 && html`<p class="calm">The recycle bin has none of these.</p>`}
        <ul class="changes">${all.map((change) => html`<${Change} key=${textOf(change.key)} run=${run} change=${change} chosen=${chosen} />`)}</ul>
        ${later.cursor && html`<${Work} class="outline small" onWork=${more}>Show more records<//>`}`}
    <//>
  <//>`;
}

function Change({ run, change, chosen }) {
  const [open, setOpen] = useState(false);
  const id = textOf(change.key);
  const kind = change.change.toLowerCase();
  const name = keyText(change.key);
  return html`<li class="change" data-kind=${kind}>
    <div class="change-head">
      ${kind === "inserted" ? html`<span class="no-choice"></span>` : html`<${Choose} chosen=${chosen} id=${id} label=${`Choose record ${name}`} />`}
      <button type="button" class="link" aria-expanded=${open} onClick=${() => setOpen(!open)}><span aria-hidden="true">${open ? "▾" : "▸"}</span> <${Name} text=${name} /></button>
      <span class="kind">${kind}</span>
    </div>
    ${open && html`<${RecordDiff} run=${run} change=${change} />`}
  </li>`;
}

// The buttons that write into the source.
function Restores({ run, chosen }) {
  const [selection, setSelection] = useState(null);
  const deleted = run.counts.deleted ?? 0;
  const close = (done) => {
    setSelection(null);
    if (done) chosen.set([]);
  };
  if (run.verb === "restore") return null;
  return html`<${Writing}><div class="row tight">
    ${chosen.list.length > 0 && html`<button type="button" class="small" onClick=${() => setSelection({ keys: chosen.list })}>Restore ${many(chosen.list.length, "chosen record")}</button>`}
    ${deleted > 0 && html`<button type="button" class="small outline" onClick=${() => setSelection({ only: "deleted" })}>${deleted === 1 ? "Restore the one" : `Restore all ${number(deleted)}`} it deleted</button>`}
    ${selection && html`<${Restore} run=${run} selection=${selection} onClose=${close} />`}
  </div><//>`;
}
