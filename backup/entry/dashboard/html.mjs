// Templates: htm's syntax over Preact's elements. Values become text, never markup.
import { h } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";

export const html = htm.bind(h);
