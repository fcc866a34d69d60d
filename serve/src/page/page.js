// Shows what /api/sets and /events say. All texts become text nodes: what a machine says of itself is never markup.
"use strict";

const NAMES = { loader: "Loader", script: "Script", kernel: "Kernel", initrd: "Initrd", root: "Root", other: "File" };

function element(tag, name, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children.filter((child) => child !== null));
  return made;
}

function bytes(number) {
  if (number < 1024) return `${number} B`;
  const units = ["KiB", "MiB", "GiB"];
  let unit = -1;
  do { number /= 1024; unit += 1; } while (number >= 1024 && unit < 2);
  return `${number.toFixed(number < 10 ? 1 : 0)} ${units[unit]}`;
}

function ago(seconds) {
  if (seconds < 3) return "now";
  if (seconds < 120) return `${seconds} s ago`;
  return `${Math.round(seconds / 60)} min ago`;
}

function step(step) {
  const whole = step.done >= step.size;
  const percent = step.size ? Math.floor((100 * step.done) / step.size) : 100;
  // A root on the server is never whole: it is read as it is needed.
  const runs = step.over === "nfs";
  const how = runs ? " (running)" : whole ? "" : ` ${percent} %`;
  const item = element("li", whole || runs ? "done" : "now", element("b", "", `${NAMES[step.role]}${how}`));
  const name = element("span", "", step.name.split("/").pop());
  name.title = step.name;
  item.append(name, element("span", "", runs ? `${bytes(step.done)} read over NFS` : `${bytes(step.size)}${step.over === "tftp" ? " by TFTP" : ""}`));
  if (!whole && !runs) {
    const bar = element("progress", "");
    bar.max = step.size;
    bar.value = step.done;
    item.append(bar);
  }
  return item;
}

function machine(machine) {
  const facts = [machine.address, machine.product, machine.serial, machine.memory_mib && `${machine.memory_mib} MiB`,
    machine.firmware || machine.platform, machine.agent].filter(Boolean).join(" · ");
  const steps = element("ol", "steps");
  if (machine.asked || machine.answered) {
    const name = machine.answered ? machine.answered.split("/").pop() : "no answer";
    steps.append(element("li", machine.answered ? "done" : "now", element("b", "", "Asked"), element("span", "", name),
      element("span", "", machine.asked > 1 ? `${machine.asked} times, by DHCP` : "by DHCP")));
  }
  steps.append(...machine.steps.map(step));
  return element("article", "card", element("h3", "", machine.id), element("p", "muted", facts),
    element("p", "muted", `heard of ${ago(machine.quiet)}`), steps,
    machine.hint ? element("p", "hint", machine.hint) : null);
}

function set(set) {
  const ways = element("table", "", element("tr", "", element("th", "", "Way to boot"), element("th", "", "Least memory")));
  for (const way of set.ways) {
    ways.append(element("tr", "", element("td", "", `${way.name}${way.platform ? ` (${way.platform})` : ""}`),
      element("td", "", way.least_ram_mib ? `${way.least_ram_mib} MiB` : "not known")));
  }
  const files = element("table", "");
  for (const file of set.files) {
    const link = element("a", "", file.path);
    link.href = `/${set.name}/@${set.id}/${file.path.split("/").map(encodeURIComponent).join("/")}`;
    const digest = file.digests && file.digests.sha256 ? element("span", "digest", `SHA-256 ${file.digests.sha256}`) : null;
    files.append(element("tr", "", element("td", "", link, digest), element("td", "number", bytes(file.size))));
  }
  const facts = set.facts.map(([name, value]) => element("p", "muted", `${name}: ${value}`));
  return element("article", "card", element("h3", "", set.title), ...facts, ways,
    element("details", "", element("summary", "", `${set.files.length} files`), files));
}

function work(work) {
  const list = element("ul", "parts");
  for (const part of work.parts) {
    list.append(element("li", part.state, element("b", "", part.name), element("span", "", part.says || part.state)));
  }
  const picture = element("img", "graph");
  picture.alt = `The graph of ${work.name}`;
  // As it is now: another address is read anew.
  const over = work.parts.filter((part) => ["done", "cached", "failed"].includes(part.state)).length;
  const running = work.parts.filter((part) => part.state === "running").map((part) => part.name).join("+");
  picture.src = `/works/${encodeURIComponent(work.name)}.svg?${over}-${encodeURIComponent(running)}`;
  const details = element("details", "", element("summary", "", `${over} of ${work.parts.length} nodes`), list);
  details.open = work.state === "running";
  return element("article", "card", element("h3", "", work.name),
    element("p", work.state === "failed" ? "hint" : "muted", work.says), element("div", "wide", picture), details);
}

let shown = "";

function showWorks(data) {
  if (data === shown) return;
  const all = JSON.parse(data);
  // A set is there once it is whole.
  if (shown && all.some((one) => one.state === "done")) readSets();
  shown = data;
  document.getElementById("works-section").hidden = all.length === 0;
  const open = document.querySelector("#works details[open]") !== null;
  document.getElementById("works").replaceChildren(...all.map(work));
  if (open) document.querySelectorAll("#works details").forEach((details) => { details.open = true; });
}

async function readSets() {
  const sets = await (await fetch("/api/sets")).json();
  document.getElementById("sets").replaceChildren(...sets.map(set));
}

function listen() {
  const live = document.getElementById("live");
  const events = new EventSource("/events");
  events.onopen = () => { live.textContent = "live"; readSets(); };
  events.onerror = () => { live.textContent = "the server does not answer; trying again …"; };
  events.addEventListener("works", (event) => showWorks(event.data));
  events.addEventListener("machines", (event) => {
    const all = JSON.parse(event.data);
    if (all.length) document.getElementById("machines").replaceChildren(...all.map(machine));
  });
}

document.getElementById("line-ipxe").textContent = `dhcp && chain ${location.origin}/boot.ipxe`;
document.getElementById("line-qemu").textContent =
  `qemu-system-x86_64 -m 1024 -netdev user,id=n0,bootfile=${location.origin}/boot.ipxe -device virtio-net-pci,netdev=n0`;
listen();
