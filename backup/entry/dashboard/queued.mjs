// What is done to jobs by a click: retried, deleted, asked to stop. Says afterwards what came of it.
import { api, NotAnswered } from "./api.mjs";
import { refresh } from "./live.mjs";
import { say } from "./parts.mjs";
import { addressOf } from "./route.mjs";
import { isolated, many } from "./text.mjs";

export async function retryJob(id, service) {
  try {
    const { jobId } = await api.retry(id);
    say(`The job of ${isolated(service)} is queued again.`, { link: addressOf("job", jobId) });
  } catch (error) {
    sayNotDone(error);
  }
  refresh();
}

export async function removeJob(id, service, runs) {
  try {
    await api.remove(id);
    say(runs ? `The job of ${isolated(service)} was asked to stop; it does at its next batch.` : `The job of ${isolated(service)} was deleted.`);
  } catch (error) {
    sayNotDone(error);
  }
  refresh();
}

// Retries or deletes many jobs, and says how many, and why not the others.
export async function toMany(action, ids) {
  const word = action === "retry" ? "queued again" : "deleted or asked to stop";
  try {
    const { done, refused, jobs } = await api.toJobs(action, ids);
    if (done) say(`${many(done, "job")} ${done === 1 ? "was" : "were"} ${word}.`);
    const reasons = [...new Set(jobs.filter((job) => job.status >= 300).map((job) => job.message))];
    if (refused) say(`${many(refused, "job")} ${refused === 1 ? "was" : "were"} not ${word}: ${reasons.join(" ")}`, { bad: true });
  } catch (error) {
    sayNotDone(error);
  }
  refresh();
}

// Of what changes something: without an answer nobody knows whether it was done.
export function sayNotDone(error) {
  if (error instanceof NotAnswered) say(`${error.message} What was asked for may have been done: look at the jobs.`, { bad: true });
  else sayRefused(error);
}

export function sayRefused(error) {
  say([error.message, error.hint].filter(Boolean).join(" "), { bad: true });
}
