// What takes back: undo in the backup, restore into the source. Both first say what they would do, and do it only after the
// service's name was typed.
import { api } from "./api.mjs";
import { html } from "./html.mjs";
import { refresh } from "./live.mjs";
import { Dialog, Name, Refusal, say, TypedName, Work } from "./parts.mjs";
import { addressOf } from "./route.mjs";
import { keyText, many, number } from "./text.mjs";
import { useEffect, useState } from "./vendor/hooks.mjs";

export function Undo({ run }) {
  const [open, setOpen] = useState(false);
  return html`<button type="button" class="small outline" data-variant="danger" onClick=${() => setOpen(true)}>Undo this run</button>
    ${open && html`<${TakeBack} title=${`Undo in the backup of ${run.service}`} verb="Undo" service=${run.service}
      note="The backup becomes what it was before this run. The source is not touched, so the next sync would make the same changes again."
      plan=${() => api.undo(run.syncId, {})}
      work=${(confirm) => api.undo(run.syncId, { confirm })}
      onClose=${() => setOpen(false)} />`}`;
}

export function Restore({ run, wish, onClose }) {
  const [overwriteNewer, setOverwriteNewer] = useState(false);
  const body = { ...wish, overwriteNewer };
  const what = wish.keys ? many(wish.keys.length, "record") : `what the run deleted`;
  return html`<${TakeBack} key=${overwriteNewer} title=${`Restore ${what} into the source of ${run.service}`} verb="Restore" service=${run.service}
    note="The records are written into the source as they were before this run."
    plan=${() => api.restore(run.syncId, body)}
    work=${(confirm) => api.restore(run.syncId, { ...body, confirm })}
    option=${html`<label><input type="checkbox" checked=${overwriteNewer} onChange=${() => setOverwriteNewer(!overwriteNewer)} /> Also overwrite records that are newer in the source</label>`}
    onClose=${onClose} />`;
}

// Says first what would change; does it only after the service's name was typed.
function TakeBack({ title, note, option, service, plan, work, verb, onClose }) {
  const [preview, setPreview] = useState(null);
  const [refusal, setRefusal] = useState(null);
  const [typed, setTyped] = useState("");
  useEffect(() => {
    plan().then(setPreview, setRefusal);
  }, []);
  const confirm = async () => {
    setRefusal(null);
    try {
      const answer = await work(typed);
      say(`${title}: ${changesOf(answer)}.`, { link: addressOf("run", answer.SyncId) });
      onClose(true);
    } catch (error) {
      setRefusal(error);
    }
    refresh();
  };
  const nothing = preview && preview.TotalProcessed === 0;
  return html`<${Dialog} title=${title} onClose=${() => onClose(false)} footer=${html`
      <button type="button" class="outline" onClick=${() => onClose(false)}>Cancel</button>
      <${Work} data-variant="danger" disabled=${!preview || typed !== service || nothing} onWork=${confirm}>${verb}<//>`}>
    ${refusal && html`<${Refusal} error=${refusal} title="Not done." />`}
    ${!preview && !refusal && html`<p aria-busy="true">Counting what would change …</p>`}
    <p>${note}</p>
    ${preview && html`
      <p>${nothing ? "Nothing would change." : html`This would change ${many(preview.TotalProcessed, "record")}: ${changesOf(preview)}.`}</p>
      <${Preview} changes=${preview.Changes ?? []} total=${preview.TotalProcessed} />
      ${preview.Notes?.length > 0 && html`<ul class="notes">${[preview.Notes].flat().map((note) => html`<li>${note}</li>`)}</ul>`}
      ${option && html`<p>${option}</p>`}
      ${!nothing && html`<${TypedName} service=${service} typed=${typed} onTyped=${setTyped} />`}`}
  <//>`;
}

function Preview({ changes, total }) {
  if (changes.length === 0) return null;
  return html`<ul class="preview">
    ${changes.slice(0, 8).map((change) => html`<li>${change.Change.toLowerCase()} <${Name} text=${keyText(change.Key)} /></li>`)}
    ${total > 8 && html`<li class="dim">and ${number(total - 8)} more</li>`}
  </ul>`;
}

function changesOf(answer) {
  return [["InsertedCount", "inserted"], ["UpdatedCount", "updated"], ["DeletedCount", "deleted"]]
    .filter(([name]) => answer[name])
    .map(([name, word]) => `${number(answer[name])} ${word}`)
    .join(", ") || "nothing changed";
}
