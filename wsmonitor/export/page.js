// What the page can do besides being read: filter, open and close all, print with everything open.
(() => {
  const bar = document.getElementById("tools");
  const tree = document.querySelector(".tree");
  if (!bar || !tree) return;
  bar.hidden = false;
  const words = document.getElementById("words");
  const state = document.getElementById("state");
  const hits = document.getElementById("hits");
  const items = [...tree.querySelectorAll(".chain, .step")];
  const lines = items.map((item) => item.querySelector(".row"));
  const hay = lines.map((line) => line.textContent.toLowerCase());

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = !wanted.length && !state.value;
    let found = 0;
    for (const item of items) item.hidden = !all;
    if (!all) {
      items.forEach((item, i) => {
        if (state.value && lines[i].dataset.state !== state.value) return;
        if (!wanted.every((word) => hay[i].includes(word))) return;
        found += 1;
        for (let at = item; at && at !== tree; at = at.parentElement) {
          at.hidden = false;
          if (at !== item && at.tagName === "DETAILS" && !at.classList.contains("facts")) at.open = true;
        }
      });
    }
    hits.textContent = all ? "" : `${found.toLocaleString()} of ${items.length.toLocaleString()} rows`;
  }

  words.addEventListener("input", filter);
  state.addEventListener("change", filter);
  const set = (open) => {
    for (const one of tree.querySelectorAll("details")) one.open = open;
  };
  document.getElementById("open").addEventListener("click", () => set(true));
  document.getElementById("close").addEventListener("click", () => {
    set(false);
    for (const one of tree.querySelectorAll("details.chain")) one.open = true;
  });
  let were = [];
  addEventListener("beforeprint", () => {
    were = [...document.querySelectorAll("details:not([open])")];
    for (const one of were) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of were) one.open = false;
  });
})();
