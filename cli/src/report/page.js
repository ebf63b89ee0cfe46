"use strict";
(() => {
  const box = document.getElementById("search");
  if (!box) return;
  const field = document.getElementById("q");
  const found = document.getElementById("found");
  const entries = [...document.querySelectorAll(".entry")].map(node => [node, node.textContent.toLowerCase()]);

  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let hits = 0;
    for (const [node, text] of entries) {
      const hit = words.every(word => text.includes(word));
      node.hidden = !hit;
      hits += hit ? 1 : 0;
    }
    found.textContent = words.length ? `${hits} of ${entries.length} changes` : "";
  };
  const follow = () => {
    const fragment = /^#q=(.*)$/.exec(location.hash);
    if (!fragment) return;
    // A fragment that somebody typed need not be well encoded.
    try { field.value = decodeURIComponent(fragment[1]); } catch { field.value = fragment[1]; }
    filter();
  };
  const all = open => entries.forEach(([node]) => { node.open = open; });

  field.addEventListener("input", () => {
    filter();
    history.replaceState(null, "", field.value ? "#q=" + encodeURIComponent(field.value) : "#");
  });
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", () => all(true));
  addEventListener("keydown", event => {
    if (event.key !== "/" || event.target === field || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    field.focus();
  });
  document.getElementById("open").addEventListener("click", () => all(true));
  document.getElementById("close").addEventListener("click", () => all(false));
  box.hidden = false;
  follow();
})();
