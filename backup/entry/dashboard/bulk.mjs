// Several jobs chosen at once, and what can be done to all of them.
import { html } from "./html.mjs";
import { Dialog, Work, Writing } from "./parts.mjs";
import { toMany } from "./queued.mjs";
import { many } from "./text.mjs";
import { useState } from "./vendor/hooks.mjs";

// Which of the listed are chosen. What leaves the list is not chosen any more.
export function useChosen(ids) {
  const [marked, setMarked] = useState(() => new Set());
  const list = ids.filter((id) => marked.has(id));
  return {
    ids,
    list,
    has: (id) => marked.has(id),
    toggle: (id) => setMarked((before) => {
      const after = new Set(before);
      if (!after.delete(id)) after.add(id);
      return after;
    }),
    set: (wanted) => setMarked(new Set(wanted)),
  };
}

export function Choose({ chosen, id, label }) {
  return html`<${Writing}><input type="checkbox" aria-label=${label} checked=${chosen.has(id)} onChange=${() => chosen.toggle(id)} /><//>`;
}

export function ChooseAll({ chosen, label }) {
  const all = chosen.ids.length > 0 && chosen.list.length === chosen.ids.length;
  return html`<${Writing}><label class="choose-all"><input type="checkbox" checked=${all} disabled=${chosen.ids.length === 0} onChange=${() => chosen.set(all ? [] : chosen.ids)} /> ${label}</label><//>`;
}

export function Bulk({ chosen, mayRetry = true }) {
  const [asks, setAsks] = useState(false);
  const count = many(chosen.list.length, "job");
  const act = async (action) => {
    await toMany(action, chosen.list);
    chosen.set([]);
    setAsks(false);
  };
  return html`<div class="row bulk">
    <span>${count} chosen</span>
    ${mayRetry && html`<${Work} class="small" onWork=${() => act("retry")}>Retry ${count}<//>`}
    <button type="button" class="small outline" data-variant="danger" onClick=${() => setAsks(true)}>Delete ${count}</button>
    <button type="button" class="small ghost" onClick=${() => chosen.set([])}>Choose none</button>
    ${asks && html`<${Dialog} title=${`Delete ${count}?`} onClose=${() => setAsks(false)}
      footer=${html`<button type="button" class="outline" onClick=${() => setAsks(false)}>Keep ${chosen.list.length === 1 ? "it" : "them"}</button>
        <${Work} data-variant="danger" onWork=${() => act("delete")}>Delete ${count}<//>`}>
      <p>Jobs that wait will not run. Jobs that run stop at their next batch, and what they have written stays. Backups and past runs are not touched.</p>
    <//>`}
  </div>`;
}
