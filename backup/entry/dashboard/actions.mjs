// What can be asked for now: sync, dry run, force, verify, drill.
import { api } from "./api.mjs";
import { html } from "./html.mjs";
import { refresh } from "./live.mjs";
import { Dialog, Name, say, Work, Writing } from "./parts.mjs";
import { sayNotDone, sayRefused } from "./queued.mjs";
import { addressOf } from "./route.mjs";
import { isolated, many, setOf } from "./text.mjs";
import { useId, useState } from "./vendor/hooks.mjs";

const ACTIONS = {
  sync: { label: "Sync", note: "Makes the backup equal to the source." },
  dryRun: { label: "Dry run", note: "Counts what a sync would do. Writes no record." },
  force: { label: "Force", note: "Copies every record again, also those that are equal." },
  verify: { label: "Verify", note: "Compares number and versions of both sides." },
  drill: { label: "Restore drill", note: "Restores a copy into a scratch place and compares it, then drops it." },
};

// Queues what was asked for, and says so.
export async function act(action, service) {
  try {
    const { jobId, jobIds } = await queued(action, service);
    say(jobIds?.length > 1 ? `${many(jobIds.length, "job")} queued.` : `Queued: ${ACTIONS[action].label.toLowerCase()} of ${isolated(service)}.`, { link: addressOf("job", jobId) });
  } catch (error) {
    sayNotDone(error);
  }
  refresh();
}

function queued(action, service) {
  if (action === "verify" || action === "drill") return api.verify({ service, drill: action === "drill" });
  return api.start({ syncType: service, dryRun: action === "dryRun", forceFullSync: action === "force" });
}

export function ServiceActions({ service }) {
  const [open, setOpen] = useState(false);
  return html`<${Writing}><div class="row tight">
    <${Work} class="small outline" onWork=${() => act("sync", service)}>Sync now<span class="hidden"> for ${service}</span><//>
    <button type="button" class="small ghost" aria-haspopup="dialog" onClick=${() => setOpen(true)}>More …<span class="hidden"> for ${service}</span></button>
    ${open && html`<${Dialog} title=${html`What shall be done with <${Name} text=${service} />?`} onClose=${() => setOpen(false)}
      footer=${html`<button type="button" class="outline" onClick=${() => setOpen(false)}>Close</button>`}>
      <${ActionList} service=${service} onDone=${() => setOpen(false)} />
    <//>`}
  </div><//>`;
}

function ActionList({ service, onDone }) {
  const run = async (action) => {
    onDone();
    await act(action, service);
  };
  return html`<ul class="actions">${Object.entries(ACTIONS).map(([action, { label, note }]) => html`<li key=${action}>
    <${Work} class="small outline" onWork=${() => run(action)}>${label}<//> <span class="dim">${note}</span>
  </li>`)}</ul>`;
}

// The sets that services are of: what stands before the slash in their names.
function setsOf(services) {
  return [...new Set(services.filter((name) => name.includes("/")).map(setOf))];
}

// For one service, for a set, or for all of them.
export function Actions({ service, services = [] }) {
  const id = useId();
  const [chosen, setChosen] = useState(service ?? "all");
  return html`
    ${!service && html`<p class="row"><label for=${id}>Service</label>
      <select id=${id} value=${chosen} onChange=${(event) => setChosen(event.target.value)}>
        <option value="all">All services</option>
        ${setsOf(services).map((set) => html`<option key=${`${set}/`} value=${set}>${set}: all of the set</option>`)}
        ${services.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select></p>`}
    <${ActionList} service=${chosen} onDone=${() => {}} />
    ${!service && html`<ul class="actions"><li><${Work} class="small outline" onWork=${testNotify}>Test notifications<//> <span class="dim">Sends a test event to everybody who is told of failures.</span></li></ul>`}`;
}

// Says which sinks took the test event, and why the others did not.
async function testNotify() {
  try {
    sayTested(await api.testNotify());
  } catch (error) {
    if (error.body?.sinks) sayTested(error.body);
    else sayRefused(error);
  }
}

function sayTested({ success, message, sinks }) {
  const refusals = sinks.filter((sink) => !sink.sent).map((sink) => `${sink.label}: ${[sink.error, sink.hint].filter(Boolean).join(" ")}`);
  say([`${message}.`, ...refusals].join(" "), { bad: !success });
}
