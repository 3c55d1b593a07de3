// What takes back: undo in the backup, restore into the source. Both first say what they would do, and do it only after the
// service's name was typed.
import { api, NotAnswered } from "./api.mjs";
import { html } from "./html.mjs";
import { refresh } from "./live.mjs";
import { Dialog, Name, Refusal, say, TypedName, Value, Work, Writing } from "./parts.mjs";
import { addressOf } from "./route.mjs";
import { keyText, many, number } from "./text.mjs";
import { useEffect, useState } from "./vendor/hooks.mjs";

const KEYS_SHOWN = 8;
const UNKNOWN = "There is no answer. What was asked for may still go on, or be done: look at the runs before you ask again.";

export function Undo({ run }) {
  const [open, setOpen] = useState(false);
  return html`<${Writing}><button type="button" class="small outline" data-variant="danger" onClick=${() => setOpen(true)}>Undo this run</button><//>
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
  return html`<${TakeBack} title=${`Restore ${what} into the source of ${run.service}`} verb="Restore" service=${run.service}
    note="The records are written into the source as they were before this run."
    plan=${() => api.restore(run.syncId, body)} planOf=${overwriteNewer}
    work=${(confirm) => api.restore(run.syncId, { ...body, confirm })}
    option=${html`<label><input type="checkbox" checked=${overwriteNewer} onChange=${() => setOverwriteNewer(!overwriteNewer)} /> Also overwrite records that are newer in the source</label>`}
    onClose=${onClose} />`;
}

// Says first what would change; does it only after the service's name was typed.
function TakeBack({ title, note, option, service, plan, planOf, work, verb, onClose }) {
  const [preview, setPreview] = useState(null);
  const [refusal, setRefusal] = useState(null);
  const [typed, setTyped] = useState("");
  useEffect(() => {
    let current = true;
    setPreview(null);
    setRefusal(null);
    plan().then((answer) => current && setPreview(answer), (error) => current && setRefusal(error));
    return () => (current = false);
  }, [planOf]);
  const confirm = async () => {
    setRefusal(null);
    try {
      const answer = await work(typed);
      const goesOn = answer.Status === "InProgress" ? " It goes on." : "";
      say(`${title}: ${changesOf(answer)}.${goesOn}`, { link: addressOf("run", answer.SyncId) });
      onClose(true);
    } catch (error) {
      setRefusal(error);
    }
    refresh();
  };
  const nothing = preview !== null && preview.TotalProcessed === 0;
  return html`<${Dialog} title=${title} onClose=${() => onClose(false)} footer=${html`
      <button type="button" class="outline" onClick=${() => onClose(false)}>Cancel</button>
      <${Work} data-variant="danger" disabled=${!preview || typed !== service || nothing} onWork=${confirm}>${verb}<//>`}>
    ${refusal && html`<${Refusal} error=${refusal} title=${refusal instanceof NotAnswered && preview ? UNKNOWN : "Not done."} />`}
    <p>${note}</p>
    ${option && html`<p>${option}</p>`}
    ${!preview && !refusal && html`<p aria-busy="true">Counting what would change …</p>`}
    ${preview && html`
      <p role="status">${nothing ? "Nothing would change." : html`This would change ${many(preview.TotalProcessed, "record")}: ${changesOf(preview)}.`}</p>
      <${Preview} changes=${preview.Changes ?? []} total=${preview.TotalProcessed} />
      ${preview.Notes?.length > 0 && html`<ul class="notes">${[preview.Notes].flat().map((each) => html`<li><${Value} text=${each} /></li>`)}</ul>`}
      ${!nothing && html`<${TypedName} service=${service} typed=${typed} onTyped=${setTyped} />`}`}
  <//>`;
}

// The first keys, and what would become of them. Records that a restore leaves alone come first: people ask why.
function Preview({ changes, total }) {
  const newer = changes.filter((change) => change.Change === "Newer");
  const others = changes.filter((change) => change.Change !== "Newer");
  const row = (word, change) => html`<li>${word} <${Name} text=${keyText(change.Key)} /></li>`;
  if (changes.length === 0) return null;
  return html`<ul class="preview">
    ${newer.slice(0, KEYS_SHOWN).map((change) => row("stays, because it is newer in the source:", change))}
    ${newer.length > KEYS_SHOWN && html`<li class="dim">and more that are newer</li>`}
    ${others.slice(0, KEYS_SHOWN).map((change) => row(change.Change.toLowerCase(), change))}
    ${total > KEYS_SHOWN && html`<li class="dim">and ${number(total - KEYS_SHOWN)} more</li>`}
  </ul>`;
}

function changesOf(answer) {
  return [["InsertedCount", "inserted"], ["UpdatedCount", "updated"], ["DeletedCount", "deleted"]]
    .filter(([name]) => answer[name])
    .map(([name, word]) => `${number(answer[name])} ${word}`)
    .join(", ") || "nothing changed";
}
