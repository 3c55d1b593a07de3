// What takes back, and what lets the guard be passed: undo in the backup, restore into the source, a sync that was stopped.
// All first say what they would do, and do it only after the service's name was typed.
import { api, NotAnswered } from "./api.mjs";
import { html } from "./html.mjs";
import { refresh } from "./live.mjs";
import { Dialog, isTyped, Name, Refusal, say, TypedName, Value, Work, Writing } from "./parts.mjs";
import { addressOf } from "./route.mjs";
import { isolated, keyText, many, number } from "./text.mjs";
import { useEffect, useState } from "./vendor/hooks.mjs";

const KEYS_SHOWN = 8;
const UNKNOWN = "There is no answer. What was asked for may still go on, or be done: look at the runs before you ask again.";

export function Undo({ run }) {
  const [open, setOpen] = useState(false);
  return html`<${Writing}><button type="button" class="small outline" data-variant="danger" onClick=${() => setOpen(true)}>Undo this run</button><//>
    ${open && html`<${TakeBack} title=${`Undo in the backup of ${isolated(run.service)}`} verb="Undo" service=${run.service}
      note="The backup becomes what it was before this run. The source is not touched, so the next sync would make the same changes again."
      plan=${() => api.undo(run.syncId, {})}
      work=${(confirm) => api.undo(run.syncId, { confirm })}
      onClose=${() => setOpen(false)} />`}`;
}

export function Restore({ run, selection, onClose }) {
  const [overwriteNewer, setOverwriteNewer] = useState(false);
  const body = { ...selection, overwriteNewer };
  const what = selection.keys ? many(selection.keys.length, "record") : "what the run deleted";
  return html`<${TakeBack} title=${`Restore ${what} into the source of ${isolated(run.service)}`} verb="Restore" service=${run.service}
    note="The records are written into the source as they were before this run."
    plan=${() => api.restore(run.syncId, body)} planOf=${overwriteNewer}
    work=${(confirm) => api.restore(run.syncId, { ...body, confirm })}
    option=${html`<label><input type="checkbox" checked=${overwriteNewer} onChange=${() => setOverwriteNewer(!overwriteNewer)} /> Also overwrite records that are newer in the source</label>`}
    onClose=${onClose} />`;
}

// What says that a sync which the guard has stopped may pass if somebody wants it: the hint of the error.
export function mayBeAllowed({ verb, errorKind, hint }) {
  return verb === "sync" && errorKind === "GuardTripped" && (hint ?? "").includes("allowMassDelete");
}

// Starts a sync that passes the guard's limits, this once. `error`: what the guard has said, with its numbers.
// `of`: whether the button names the service, because others stand beside it.
export function Allow({ service, error, of = false }) {
  const [open, setOpen] = useState(false);
  const these = (error ?? "").includes("would be updated") ? "these updates" : "these deletes";
  return html`<${Writing}><button type="button" class="small outline" data-variant="danger" aria-haspopup="dialog" onClick=${() => setOpen(true)}>Allow ${these} once<span class=${of ? "" : "hidden"}> for <${Name} text=${service} /></span></button><//>
    ${open && html`<${TakeBack} title=${`Allow ${these} of ${isolated(service)} once`} verb="Allow once" service=${service}
      note=${html`The guard stopped the sync: <strong><${Value} text=${error} clip=${600} /></strong> Go on only if the source is the right one, and if this was done on purpose. The recycle bin keeps what the sync deletes and overwrites.`}
      plan=${() => api.dryRun(service)}
      work=${() => api.start({ syncType: service, allowMassDelete: true })}
      done=${({ jobId }) => say(`Queued: a sync of ${isolated(service)} that the guard lets pass.`, { link: addressOf("job", jobId) })}
      onClose=${() => setOpen(false)} />`}`;
}

// Says first what would change; does it only after the service's name was typed.
function TakeBack({ title, note, option, service, plan, planOf, work, done, verb, onClose }) {
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
      const answer = await work(service);
      if (done) done(answer);
      else sayDone(title, answer);
      onClose(true);
    } catch (error) {
      setRefusal(error);
    }
    refresh();
  };
  const total = preview === null ? 0 : changedBy(preview);
  const nothing = preview !== null && total === 0 && preview.Status !== "InProgress";
  return html`<${Dialog} title=${title} onClose=${() => onClose(false)} footer=${html`
      <button type="button" class="outline" onClick=${() => onClose(false)}>Cancel</button>
      <${Work} data-variant="danger" disabled=${!preview || !isTyped(typed, service) || nothing} onWork=${confirm}>${verb}<//>`}>
    ${refusal && html`<${Refusal} error=${refusal} title=${refusal instanceof NotAnswered && preview ? UNKNOWN : "Not done."} />`}
    <p>${note}</p>
    ${option && html`<p>${option}</p>`}
    ${!preview && !refusal && html`<p aria-busy="true">Counting what would change …</p>`}
    ${preview && html`
      <p role="status">${nothing ? "Nothing would change." : html`This would change ${many(total, "record")}: ${changesOf(preview)}.`}
        ${preview.Status === "InProgress" && " Not all was counted yet: there may be more."}</p>
      <${Preview} changes=${preview.Changes ?? []} total=${total} />
      ${preview.Notes?.length > 0 && html`<ul class="notes">${[preview.Notes].flat().map((each) => html`<li><${Value} text=${each} /></li>`)}</ul>`}
      ${!nothing && html`<${TypedName} service=${service} typed=${typed} onTyped=${setTyped} />`}`}
  <//>`;
}

// The first keys, and what would become of them. Records that a restore leaves alone come first: people ask why.
function Preview({ changes, total }) {
  const newer = changes.filter((change) => change.Change === "Newer");
  const others = changes.filter((change) => change.Change !== "Newer").sort((one, other) => isDelete(other) - isDelete(one));
  const row = (word, change) => html`<li>${word} <${Name} text=${keyText(change.Key)} /></li>`;
  if (changes.length === 0) return null;
  return html`<ul class="preview">
    ${newer.slice(0, KEYS_SHOWN).map((change) => row("stays, because it is newer in the source:", change))}
    ${newer.length > KEYS_SHOWN && html`<li class="dim">and more that are newer</li>`}
    ${others.slice(0, KEYS_SHOWN).map((change) => row(change.Change.toLowerCase(), change))}
    ${total > KEYS_SHOWN && html`<li class="dim">and ${number(total - KEYS_SHOWN)} more</li>`}
  </ul>`;
}

const isDelete = (change) => change.Change === "Deleted";

const COUNTS = [["InsertedCount", "inserted"], ["UpdatedCount", "updated"], ["DeletedCount", "deleted"]];

function sayDone(title, answer) {
  const goesOn = answer.Status === "InProgress" ? " It goes on." : "";
  say(`${title}: ${changesOf(answer)}.${goesOn}`, { link: addressOf("run", answer.SyncId) });
}

function changedBy(answer) {
  return COUNTS.reduce((sum, [name]) => sum + (answer[name] ?? 0), 0);
}

function changesOf(answer) {
  return COUNTS
    .filter(([name]) => answer[name])
    .map(([name, word]) => `${number(answer[name])} ${word}`)
    .join(", ") || "nothing changed";
}
