"use strict";
// Fetches the page again and takes its table, so that only the server renders tables.
const offline = document.getElementById("offline");
async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    const next = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    if (!answer.ok || !next) throw new Error(answer.statusText);
    document.querySelector("main").replaceWith(document.adoptNode(next));
    offline.hidden = true;
  } catch {
    offline.hidden = false;
  }
  setTimeout(refresh, document.hidden ? 10000 : 2000);
}
setTimeout(refresh, 2000);
