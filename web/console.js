// A machine's console in a browser: what koboshi's attach protocol says, shown by xterm.js. The ticket is in the
// address's fragment, which no server sees; it is good once, so the address forgets it.
"use strict";

const byId = (id) => document.getElementById(id);
const machine = decodeURIComponent(location.pathname.split("/")[2] || "");
const ticket = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
document.title = machine + " · koboshi";
byId("machine").textContent = machine;

const screen = new Terminal({ cols: 80, rows: 25, scrollback: 10000 });
// What a machine sends must not act on this browser: no titles, no links, no clipboard, no strings of any kind.
for (const osc of [0, 1, 2, 4, 7, 8, 9, 10, 11, 12, 50, 52, 104, 110, 111, 112, 133, 777, 1337]) {
  screen.parser.registerOscHandler(osc, () => true);
}
screen.open(byId("screen"));

const note = (text) => { byId("note").textContent = text; };
const words = (person) => person.name + " (" + person.via + ")";
let socket = null, visit = null, holder = null, types = false;

const want = (request) => {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(request));
};
byId("lines").onclick = () => { screen.reset(); want({ want: "tail", lines: 1000 }); screen.focus(); };
byId("drawn").onclick = () => { want({ want: "screen" }); screen.focus(); };
for (const name of ["ask", "take", "release", "break"]) {
  byId(name).onclick = () => { want({ want: name }); screen.focus(); };
}

const floor = (now) => {
  holder = now.holder;
  const mine = holder !== null && holder.visit === visit;
  byId("holder").textContent = holder === null ? "nobody types"
    : mine ? "you type" : words(holder) + " types, since " + new Date(holder.since).toLocaleTimeString();
  if (mine && now.asking.length) note(now.asking.map(words).join(", ") + " asks for the line");
  byId("ask").disabled = byId("take").disabled = !types || mine;
  byId("release").disabled = byId("break").disabled = !mine;
};
const line = (state) => {
  byId("state").textContent = state.state + (state.why ? ": " + state.why : "");
};
const mark = (mark) => {
  const { kind, ...rest } = mark;
  const who = rest.who ? words(rest.who) : "";
  switch (kind) {
    case "operator": return { holds: who + " holds the line", took: who + " took the line",
      given: who + " was given the line", "gave-way": who + " holds the line", "let-go": who + " let go of the line",
      asks: who + " asks for the line" }[rest.did] || rest.did;
    case "skipped": return rest.characters + " characters are skipped: this page was too slow";
    default: return kind + (rest.why ? ": " + rest.why : "");
  }
};

const control = {
  hello: (m) => { visit = m.visit; types = m.types; line(m.line); floor(m);
    note(types ? "" : "You may watch, and not type.");
    want({ want: "screen" });
    if (types && m.holder === null) want({ want: "ask" });
    screen.focus(); },
  floor, line: (m) => line(m.line),
  mark: (m) => note(new Date(m.at).toLocaleTimeString() + "  " + mark(m.mark)),
  refused: (m) => note(m.why),
  bye: (m) => note(m.why),
};

if (ticket === "") {
  note("This page needs a ticket: on the host, koboshi console " + machine + " --url prints its address.");
} else {
  const where = (location.protocol === "https:" ? "wss://" : "ws://") + location.host;
  socket = new WebSocket(where + "/console/" + encodeURIComponent(machine) + "/attach?last=0",
    ["koboshi", "ticket." + ticket]);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => {
    if (typeof event.data !== "string") {
      screen.write(new Uint8Array(event.data));
      return;
    }
    const message = JSON.parse(event.data);
    const does = control[message.is];
    if (does) does(message);
  };
  socket.onclose = () => {
    socket = null;
    byId("holder").textContent = "";
    if (visit === null) {
      note("The ticket was used before, is too old, or is for another machine: koboshi console " + machine
        + " --url prints another one.");
    } else {
      note("The connection is gone: koboshi console " + machine + " --url prints a new address.");
    }
  };
  const encoder = new TextEncoder();
  screen.onData((typed) => {
    // Answers of this terminal to what a machine asks are the operator's alone.
    if (socket && holder !== null && holder.visit === visit) socket.send(encoder.encode(typed));
  });
}
