// Small parts that all views share.
import { caller, silentSince } from "./api.mjs";
import { html } from "./html.mjs";
import { addressOf } from "./route.mjs";
import { Store, useStore } from "./store.mjs";
import { clipped, exact, relative } from "./text.mjs";
import { useEffect, useErrorBoundary, useId, useRef, useState } from "./vendor/hooks.mjs";

const CLIP = 400;
const NAME_CLIP = 80;
const AGAIN_MS = 10_000;
const VARIANT = {
  Succeeded: "success", Completed: "success", Safe: "success",
  Failed: "danger", Overdue: "danger", Never: "danger", Differs: "danger",
  Processing: "running", InProgress: "running", Enqueued: "waiting", Scheduled: "waiting", Pending: "waiting",
  Stopping: "warning", Deleted: "plain",
};
const WORDS = { InProgress: "In progress" };
const SIGN = { success: "✓", danger: "✕", running: "▸", waiting: "◦", warning: "!", plain: "–" };

// A state in colour, with a sign and its name: nobody has to tell colours apart.
export function Badge({ state, label }) {
  const variant = VARIANT[state] ?? "plain";
  return html`<span class="state" data-variant=${variant}><span aria-hidden="true">${SIGN[variant]}</span> ${label ?? WORDS[state] ?? state}</span>`;
}

// Where a run or a job leads back to: all services, and its own.
export function Back({ service }) {
  return html`<p><a href="#/">← Overview</a>${service && html` · <a href=${addressOf("service", service)}><${Name} text=${service} /></a>`}</p>`;
}

// How long ago, and below it the exact time with its zone.
export function Time({ at, none = "never", inline = false }) {
  useClock();
  if (!at) return html`<span class="dim">${none}</span>`;
  return html`<time datetime=${at} title=${exact(at)} class=${inline ? "inline" : ""}>
    <span>${relative(at)}</span> <small class="dim">${inline ? `(${exact(at)})` : exact(at)}</small>
  </time>`;
}

const clock = new Store(Date.now());
const tick = () => document.visibilityState !== "hidden" && (clock.value = Date.now());
setInterval(tick, 15_000);
document.addEventListener("visibilitychange", tick);

// Draws the caller anew from time to time, so that "3 min ago" stays true.
export function useClock() {
  return useStore(clock);
}

// A name or value of somebody else's making: its direction does not reach beyond it, a long one is cut until asked for.
export function Value({ text, clip = CLIP }) {
  const [open, setOpen] = useState(false);
  const whole = String(text);
  if (whole.length <= clip) return html`<bdi class="value">${whole}</bdi>`;
  return html`<bdi class="value">${open ? whole : `${whole.slice(0, clip)}…`}</bdi>
    <button type="button" class="link" aria-expanded=${open} onClick=${() => setOpen(!open)}>
      ${open ? "Show less" : `Show all ${whole.length.toLocaleString("en-GB")} characters`}
    </button>`;
}

// As a part of a link, a button or a title: cut in the middle, and nothing in it can be clicked.
export function Name({ text }) {
  return html`<bdi class="value">${clipped(String(text), NAME_CLIP)}</bdi>`;
}

// An error as the app says it: what happened, and what to do.
export function Problem({ error, hint, kind, title }) {
  return html`<div class="problem">
    ${title && html`<p class="problem-title">${title}</p>`}
    <p>${kind && html`<code>${kind}</code> `}<${Value} text=${error} clip=${600} /></p>
    ${hint && html`<p class="hint"><strong>What to do:</strong> <${Value} text=${hint} clip=${600} /></p>`}
  </div>`;
}

export function Refusal({ error, title }) {
  return html`<div role="alert" data-variant="danger"><${Problem} title=${title} error=${error.message} hint=${error.hint} kind=${error.kind} /></div>`;
}

// What `useLive` has brought: the children of its data, or why there is none yet. Of a silent server the whole page tells.
export function Live({ live, empty, children }) {
  const { data, error } = live;
  const isSilent = useStore(silentSince) !== null;
  const tells = error && error.status !== 401 && (error.status || (data !== null && !isSilent));
  return html`
    ${tells && html`<${Refusal} error=${error} title=${data ? "This could not be asked anew. What is below may be old." : "This could not be read."} />`}
    ${data === null ? !error?.status && html`<p class="dim" aria-busy="true">${error ? `${error.message} Trying again …` : "Reading …"}</p>` : (empty && empty(data)) || children(data)}
  `;
}

// Its children; or, where an answer is so that they cannot be drawn, a word of it. Then it tries again.
export function Guarded({ children }) {
  const [error, again] = useErrorBoundary();
  useEffect(() => {
    const timer = error && setTimeout(again, AGAIN_MS);
    return () => clearTimeout(timer);
  }, [error]);
  return error ? html`<div role="alert" data-variant="danger"><${Problem} title="An answer of the app cannot be shown. This page tries again." error=${error.message} /></div>` : children;
}

export function Section({ id, title, note, aside, children }) {
  return html`<section aria-labelledby=${`${id}-title`} id=${id}>
    <header class="section-head">
      <div><h2 id=${`${id}-title`}>${title}</h2>${note && html`<p class="dim">${note}</p>`}</div>
      ${aside && html`<div class="aside">${aside}</div>`}
    </header>
    <${Guarded}>${children}<//>
  </section>`;
}

// A wide table scrolls by itself, also by keyboard; the page never does sideways.
export function Table({ label, head, children }) {
  return html`<div class="table-frame" tabindex="0" role="region" aria-label=${label}>
    <table><thead><tr>${head.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead><tbody>${children}</tbody></table>
  </div>`;
}

// A dialog of the browser: it keeps the focus inside, Escape closes it, and the focus goes back to where it came from.
export function Dialog({ title, onClose, children, footer }) {
  const dialog = useRef();
  const id = useId();
  useEffect(() => {
    const opener = document.activeElement;
    dialog.current.showModal();
    return () => opener?.isConnected && opener.focus();
  }, []);
  return html`<dialog ref=${dialog} aria-labelledby=${id} onCancel=${(event) => { event.preventDefault(); onClose(); }}>
    <header><h2 id=${id}>${title}</h2></header>
    <div class="dialog-body">${children}</div>
    <footer>${footer}</footer>
  </dialog>`;
}

// Asks for the service's name to be typed before something that writes to a source or takes something back.
export function TypedName({ service, typed, onTyped }) {
  const id = useId();
  return html`<div class="typed">
    <label for=${id}>To go on, type the service's name: <strong><bdi class="value">${service}</bdi></strong></label>
    <input id=${id} autocomplete="off" autocapitalize="off" spellcheck=${false} value=${typed}
      onInput=${(event) => onTyped(event.target.value)} />
  </div>`;
}

// Whether that is what was typed. A field of one line takes no line breaks, so those of a name do not count.
export const isTyped = (typed, service) => typed !== "" && typed === service.replace(/[\r\n]/g, "");

// What was done, said once at the foot of the page and to screen readers.
const notices = new Store([]);
let noticed = 0;

export function say(text, { bad = false, link } = {}) {
  const notice = { id: ++noticed, text, bad, link };
  notices.value = [...notices.value.slice(-3), notice];
  if (!bad) setTimeout(() => drop(notice), 12_000);
}

function drop(notice) {
  notices.value = notices.value.filter((each) => each !== notice);
}

export function Notices() {
  const all = useStore(notices);
  return html`<div class="notices" role="status" aria-live="polite">
    ${all.map((notice) => html`<div key=${notice.id} class=${`notice${notice.bad ? " bad" : ""}`}>
      <span>${notice.text}${notice.link && html` <a href=${notice.link}>Open</a>`}</span>
      <button type="button" class="ghost small" aria-label="Close this message" onClick=${() => drop(notice)}>✕</button>
    </div>`)}
  </div>`;
}

// What only those see who may write.
export function Writing({ children }) {
  return useStore(caller).mayWrite ? children : null;
}

// A button that is off while its work goes on, so that nothing is asked for twice.
export function Work({ onWork, children, disabled, ...rest }) {
  const [busy, setBusy] = useState(false);
  const work = async () => {
    setBusy(true);
    try {
      await onWork();
    } finally {
      setBusy(false);
    }
  };
  return html`<button type="button" ...${rest} disabled=${disabled || busy} aria-busy=${busy} onClick=${work}>${children}</button>`;
}
