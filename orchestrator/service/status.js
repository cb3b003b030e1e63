"use strict";
// Live updates of the status pages. Without this file, the pages say the same and stand still.
// Whatever comes from a node is put into the page as text, never as markup.

(() => {
  const TAIL_LINES = 200;
  const REFRESH_PAUSE = 1000;
  const RECONNECT_PAUSE = 10000;
  // How far this machine's clock is ahead of the server's, in milliseconds.
  let ahead = 0;
  let source = null;
  let refreshing = false;
  let refreshDue = false;

  const main = document.getElementById("main");

  function durationText(milliseconds) {
    const all = Math.max(0, Math.round(milliseconds / 1000));
    const pad = (number) => String(number).padStart(2, "0");
    if (all < 60) return `${all} s`;
    const seconds = all % 60;
    const minutes = Math.floor(all / 60) % 60;
    const hours = Math.floor(all / 3600);
    if (hours) return minutes ? `${hours} h ${pad(minutes)} min` : `${hours} h`;
    return seconds ? `${minutes} min ${pad(seconds)} s` : `${minutes} min`;
  }

  function leftText(due, now) {
    const at = new Date(due).toISOString().slice(11, 16);
    if (now > due) return `expected at ${at} UTC, late by ${durationText(now - due)}`;
    return `expected at ${at} UTC, in ${durationText(due - now)}`;
  }

  function setText(element, text) {
    if (element && element.textContent !== text) element.textContent = text;
  }

  function say(text) {
    setText(document.getElementById("said"), text);
  }

  function tick() {
    const now = Date.now() - ahead;
    for (const clock of document.querySelectorAll(".clock")) {
      const { began, ended, due } = clock.dataset;
      if (!began) continue;
      const end = ended ? Date.parse(ended) : now;
      setText(clock.querySelector(".elapsed"), durationText(end - Date.parse(began)));
      setText(clock.querySelector(".left"), due ? leftText(Date.parse(due), now) : "");
    }
    for (const bar of document.querySelectorAll("progress[data-since]")) {
      bar.value = Math.min((now - Date.parse(bar.dataset.since)) / 1000, bar.max);
    }
  }

  function findNode(release, name) {
    for (const node of document.querySelectorAll(".node")) {
      if (node.dataset.release === release && node.dataset.node === name) return node;
    }
    return null;
  }

  function updateRow(node, row) {
    const badge = node.querySelector(".badge");
    const isNews = badge.lastElementChild.textContent !== row.phase && isEnd(row.state);
    if (!node.classList.contains(row.state)) {
      node.className = `node ${row.state}`;
      badge.className = `badge ${row.state}`;
    }
    setText(badge.lastElementChild, row.phase);
    setText(node.querySelector(".note"), row.note);
    const clock = node.querySelector(".clock");
    clock.dataset.began = row.began || "";
    clock.dataset.ended = row.ended || "";
    clock.dataset.due = row.due || "";
    const bar = node.querySelector("progress");
    const isBuilding = row.phase === "building" && row.expected && row.since;
    bar.hidden = !isBuilding;
    if (isBuilding) {
      bar.max = row.expected;
      bar.dataset.since = row.since;
    } else {
      delete bar.dataset.since;
    }
    appendLines(node.querySelector(".log"), row.first, row.lines);
    return isNews;
  }

  function isEnd(state) {
    return ["built", "failed", "skipped"].includes(state);
  }

  function appendLines(log, first, lines) {
    const block = log.querySelector("pre");
    const next = Number(block.dataset.next);
    const fresh = lines.slice(Math.max(0, next - first));
    if (!fresh.length) return;
    const isAtEnd = block.scrollTop + block.clientHeight >= block.scrollHeight - 4;
    const kept = block.textContent === "" ? [] : block.textContent.split("\n");
    if (first > next) kept.push("[some lines are left out here]");
    block.textContent = [...kept, ...fresh].slice(-TAIL_LINES).join("\n");
    block.dataset.next = String(first + lines.length);
    setText(log.querySelector(".last"), fresh[fresh.length - 1]);
    log.hidden = false;
    if (isAtEnd) block.scrollTop = block.scrollHeight;
  }

  function update(message) {
    const told = JSON.parse(message.data);
    ahead = Date.now() - Date.parse(told.now);
    const news = [];
    for (const release of told.releases) {
      for (const row of release.rows) {
        const node = findNode(release.release, row.node);
        if (node && updateRow(node, row)) news.push(`${row.node}: ${row.phase}`);
      }
    }
    if (news.length) say(news.join(", "));
    if (told.mark !== main.dataset.mark) refresh();
    tick();
  }

  // What is new on the page comes from the server, which knows how to show it.
  async function refresh() {
    if (refreshing) {
      refreshDue = true;
      return;
    }
    refreshing = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.ok) adopt(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      refreshDue = true;
    }
    setTimeout(() => {
      refreshing = false;
      if (refreshDue) {
        refreshDue = false;
        refresh();
      }
    }, REFRESH_PAUSE);
  }

  function adopt(page) {
    const fresh = page.getElementById("main");
    if (!fresh) return;
    const open = new Set([...main.querySelectorAll("details[open]")].map(nameOf));
    const focus = nameOf(document.activeElement);
    document.title = page.title;
    replaceChildren(document.querySelector("header"), page.querySelector("header"));
    replaceChildren(main, fresh);
    main.dataset.mark = fresh.dataset.mark;
    for (const details of main.querySelectorAll("details")) {
      if (!open.has(nameOf(details))) continue;
      details.open = true;
      const block = details.querySelector("pre");
      if (block) block.scrollTop = block.scrollHeight;
    }
    if (focus && nameOf(document.activeElement) !== focus) {
      const candidates = document.querySelectorAll("a, summary, pre, [tabindex]");
      const again = [...candidates].find((element) => nameOf(element) === focus);
      if (again) again.focus({ preventScroll: true });
    }
    tick();
  }

  // What is the same stays, and so does a form that somebody is filling in.
  function replaceChildren(old, fresh) {
    const before = new Map([...old.children].map((child, index) => [child.id || index, child]));
    let last = null;
    [...fresh.children].forEach((child, index) => {
      const present = before.get(child.id || index);
      before.delete(child.id || index);
      const isKept = present && (present.isEqualNode(child) || isInUse(present));
      const next = isKept ? present : document.adoptNode(child);
      if (present && !isKept) present.replaceWith(next);
      else if (!present && last) last.after(next);
      else if (!present) old.prepend(next);
      last = next;
    });
    for (const child of before.values()) child.remove();
  }

  function isInUse(section) {
    return [...section.querySelectorAll("input")].some((input) => input.value !== input.defaultValue);
  }

  // What tells an element from the others, also on the page as it is made again.
  function nameOf(element) {
    if (!element || element === document.body) return "";
    const node = element.closest(".node");
    const section = element.closest("section, nav");
    const place = node ? `${node.dataset.release} ${node.dataset.node}` : section && section.id;
    return `${place} ${element.tagName} ${element.getAttribute("href") || element.className}`;
  }

  function connect() {
    const link = document.getElementById("link");
    source = new EventSource("/status/events");
    source.onopen = () => setText(link, "Live.");
    source.onmessage = update;
    source.onerror = () => {
      setText(link, "Not live now: the connection is being made again.");
      // The browser tries again by itself, unless the server has refused.
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, RECONNECT_PAUSE);
    };
  }

  // Kept open, a stream would keep the page out of the browser's cache of pages.
  addEventListener("pagehide", () => source && source.close());
  addEventListener("pageshow", (event) => {
    if (event.persisted && main.dataset.mark) connect();
  });
  // A page that only says what went wrong has no mark, and stays as it is.
  if (main.dataset.mark) {
    connect();
    setInterval(tick, 1000);
  }
})();
