// Everything works without this: it shortens addresses, prints, and keeps the history up to date.
"use strict";

for (const form of document.querySelectorAll("form[method=get]")) {
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) {
      if (value === "") event.formData.delete(name);
    }
  });
}

for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}

// Paper has nothing to click on.
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll(".report details")) details.open = true;
});

const live = document.getElementById("live");
if (live) {
  const PAUSE_MS = 1000;
  const control = document.getElementById("live-control");
  const results = document.getElementById("results");
  const label = control.querySelector("span");
  let timer;
  let shown = "";

  const refresh = async () => {
    if (!live.checked) return;
    if (!document.hidden) {
      try {
        const answer = await fetch(live.dataset.source, { credentials: "same-origin" });
        if (answer.status === 401) {
          location.reload();
          return;
        }
        if (!answer.ok) throw new Error(String(answer.status));
        const html = await answer.text();
        if (!live.checked) return;
        if (html !== shown) results.innerHTML = html;
        shown = html;
        label.textContent = "Live";
        control.classList.remove("stale");
      } catch {
        label.textContent = "Live: no answer";
        control.classList.add("stale");
      }
    }
    timer = setTimeout(refresh, PAUSE_MS);
  };

  control.hidden = false;
  live.checked = sessionStorage.getItem("live") === "on";
  live.addEventListener("change", () => {
    sessionStorage.setItem("live", live.checked ? "on" : "off");
    clearTimeout(timer);
    refresh();
  });
  refresh();
}
