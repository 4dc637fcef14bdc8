// The page of the chat. What it and the server say to each other is described in server.py; pubsub.js, which comes with
// ws4py, keeps the connection, and goes on where it was. Whatever the others wrote goes into the page as textContent,
// never as HTML.

import { PubSub } from "./pubsub.js";

const HISTORY = 50; // messages to begin a room with
const LONGEST_LOG = 500; // messages and notices kept in the page
const GROUP_TIME = 5 * 60; // seconds in which the messages of one person stay together

const LOBBY = "lobby"; // the room of those who have named none
const $ = (id) => document.getElementById(id);
const entrance = $("entrance"), room = $("room"), log = $("log"), outboxList = $("outbox"), scroller = $("scroller");
const nameField = $("name"), roomField = $("room-field"), joinStatus = $("join-status"), textField = $("text"), textCount = $("text-count");
const sendButton = document.querySelector("#say button");

// What the browser remembers. It may be told not to: then we do without.

function remember(storage, key, value) {
  try {
    if (value === undefined) return window[storage].getItem(key) ?? "";
    if (value) window[storage].setItem(key, value);
    else window[storage].removeItem(key);
  } catch { /* forbidden or full */ }
  return value ?? "";
}

const rememberedName = (value) => remember("localStorage", "chat-name", value); // for the next visit
const seatKey = (value) => remember("sessionStorage", "chat-key", value); // this window is in the room

let keyInMemory = "";

function secret() {
  keyInMemory ||= seatKey() || token();
  seatKey(keyInMemory);
  return keyInMemory;
}

function token() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The state

let pubsub = null;
let link = "off"; // "connecting", "here" (welcomed), "lost" (waiting for the next attempt), or "off"
let attempts = 0; // since the last welcome
let retryAt = 0, countdown = 0;

let me = ""; // our name as the others see it; "" as long as we never were in a room
let wanted = rememberedName(); // the name to join with
let limits = { name: 24, text: 500, room: 24 };
let roomName = ""; // of the room that is shown
let old = 0; // so many of the next messages were said before
const people = new Set();
const outbox = new Map(); // id -> {topic, text, item}: said here, not yet heard back from the server
const shown = new Set(); // ids of the messages in the log
let unread = 0; // messages that arrived while the page was hidden

// The connection

function connect() {
  disconnect();
  pubsub = new PubSub("ws", {
    initial: 500,
    maximum: 20_000,
    greeting: () => ({ type: "join", name: wanted, key: secret() }),
    onstate: (state, { delay }) => {
      clearInterval(countdown);
      if (state === "waiting") {
        attempts += 1;
        retryAt = Date.now() + delay;
        setLink("lost");
        countdown = setInterval(showOutage, 500);
      } else if (state === "connecting") {
        setLink("connecting");
      } else if (state === "closed" && link !== "off") {
        leave("The server has closed the connection.");
      }
    },
    onother: (message) => hear[message.type]?.(message),
  });
  followRoom();
  for (const id of outbox.keys()) send(id);
}

function disconnect() {
  clearInterval(countdown);
  link = "off";
  pubsub?.close();
  pubsub = null;
}

const topicOf = (name) => `room/${name}`;

/** The room that the address names. */
function namedRoom() {
  try {
    const named = decodeURIComponent(location.hash.slice(1)).trim().replace(/\s+/g, " ");
    return [...named].slice(0, limits.room).join("");
  } catch { // half an escape
    return "";
  }
}

function followRoom() {
  const name = namedRoom() || LOBBY;
  if (name !== roomName) {
    pubsub.unsubscribe(topicOf(roomName));
    log.replaceChildren();
    shown.clear();
    people.clear();
    roomName = name;
    showPeople();
  }
  setText($("room-name"), roomName);
  pubsub.subscribe(topicOf(roomName), {
    last: HISTORY,
    onsubscribed: ({ messages }) => {
      old = messages; // what we have of them is not news to be read out
      log.setAttribute("aria-busy", String(old > 0));
    },
    onmessage: (data) => {
      hear.said(JSON.parse(data), old <= 0);
      old--;
      if (old <= 0) log.setAttribute("aria-busy", "false");
    },
    onpresence: (present, { type, name }) => {
      const news = type !== "presence" && present.has(name) !== people.has(name);
      people.clear();
      for (const each of present.keys()) people.add(each);
      showPeople();
      if (news) notice(name, type, Date.now() / 1000);
    },
    onerror: ({ message }) => notice("", message, Date.now() / 1000),
  });
}

addEventListener("hashchange", () => {
  if (pubsub && (namedRoom() || LOBBY) !== roomName) followRoom();
});

function setLink(state) {
  link = state;
  room.dataset.link = state;
  // It is read out: once when the connection is lost, not at each attempt to get it back.
  setText($("link"), state === "here" ? "Connected" : attempts ? "Not connected" : state === "off" ? "" : "Connecting");
  for (const item of outboxList.children) showState(item);
  showOutage();
  showCount();
}

function showOutage() {
  // A first connection that takes a moment is no outage.
  const out = link === "lost" || (link === "connecting" && attempts > 0);
  $("outage").hidden = !out;
  $("retry").hidden = link !== "lost";
  const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
  const text = link === "lost" ? `Disconnected. Next try in ${seconds}\u00a0s.` : "Disconnected. Trying again.";
  $("outage-text").textContent = out ? text : "";
  if (entrance.hidden || link === "off") return;
  setJoinStatus(out ? "The server can't be reached. Trying again." : link === "connecting" ? "Connecting" : "");
}

// What the server says

const hear = {
  welcome(event) {
    attempts = 0;
    me = event.name;
    wanted = me;
    limits = event.limits;
    rememberedName(me);
    setLink("here");
    showPeople();
    if (!entrance.hidden) enter();
  },

  said(event, fresh) {
    heard(event.id);
    if (shown.has(event.id)) return;
    shown.add(event.id);
    append(messageItem(event), event.time, fresh);
    if (fresh && document.hidden) {
      unread++;
      showTitle();
    }
  },

  error({ text }) {
    if (link !== "here") leave(text);
  },
};

// The two views

function enter() {
  entrance.hidden = true;
  room.hidden = false;
  scrollDown();
  textField.focus();
}

/** Go to the entrance. The conversation, and what is not sent, stay for when we come back. */
function leave(text = "", bad = true) {
  pubsub?.unsubscribe(topicOf(roomName));
  disconnect();
  attempts = 0;
  keyInMemory = seatKey("");
  people.clear();
  setLink("off");
  room.hidden = true;
  entrance.hidden = false;
  setJoinStatus(text, bad && text !== "");
  nameField.value = wanted || rememberedName();
  nameField.focus();
  nameField.select();
}

function setJoinStatus(text, bad = false) {
  setText(joinStatus, text);
  joinStatus.classList.toggle("bad", bad);
  nameField.setAttribute("aria-invalid", String(bad));
}

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = nameField.value.trim().replace(/\s+/g, " ");
  const excess = length(name) - limits.name;
  if (!name) setJoinStatus("Please enter a name.", true);
  else if (excess > 0) setJoinStatus(`A name can have ${limits.name} characters; this one has ${length(name)}.`, true);
  else {
    wanted = name;
    location.hash = encodeURIComponent(roomField.value.trim());
    connect();
    return;
  }
  nameField.focus();
});

$("leave").addEventListener("click", () => leave());
$("retry").addEventListener("click", () => pubsub?.retry());

$("people-toggle").addEventListener("click", () => {
  const open = $("people").classList.toggle("open");
  $("people-toggle").setAttribute("aria-expanded", String(open));
  keepDown();
});

// Who is here

function showPeople() {
  const others = [...people].filter((name) => name !== me).sort((a, b) => a.localeCompare(b));
  const names = people.has(me) ? [me, ...others] : others;
  $("people-list").replaceChildren(...names.map((name) => {
    const item = make("li", "", face(name), make("bdi", "", name));
    if (name === me) item.append(make("small", "", "you"));
    return item;
  }));
  for (const element of document.querySelectorAll("[data-count]")) element.textContent = people.size;
  showSilence();
}

function showSilence() {
  const alone = "You are the only one here. Open this page in a second window to have somebody to talk to.";
  const quiet = log.querySelector(".message") === null && outbox.size === 0;
  $("silence").textContent = !quiet || link !== "here" ? "" : people.size < 2 ? alone : "Nobody has said anything yet.";
}

/** Always the same colour for the same name (FNV-1a, spread over 15 hues). */
function hue(name) {
  let hash = 0x811c9dc5;
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193) >>> 0;
  return (hash >>> 8) % 15 * 24;
}

function face(name) {
  const words = name.split(" ");
  const initials = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  const element = make("span", "face", initials.map((word) => [...word][0]).join("").toUpperCase());
  element.style.setProperty("--hue", hue(name));
  element.setAttribute("aria-hidden", "true");
  return element;
}

// The conversation

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children); // strings become text
  return element;
}

/** Leave what is there already alone: it would be read out again. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function clock(seconds) {
  const date = new Date(seconds * 1000);
  const element = make("time", "", date.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" }));
  element.dateTime = date.toISOString();
  element.title = date.toLocaleString();
  return element;
}

function words(text) {
  const element = make("span", "words", text);
  element.dir = "auto";
  return element;
}

function messageItem({ id, name, text, time }) {
  const last = log.lastElementChild;
  const first = last?.dataset.author !== name || time - last.dataset.time > GROUP_TIME || isNewDay(time);
  const mine = name === me;
  const item = make("div", `message${mine ? " mine" : ""}${first ? " first" : ""}`);
  item.dataset.author = name;
  item.dataset.id = id;
  item.style.setProperty("--hue", hue(name));
  if (first && !mine) item.append(face(name));
  // Every message says whose it is to those who hear the page, the first of a group to all.
  const author = make("p", first && !mine ? "author" : "unseen", mine ? "You" : make("bdi", "", name));
  item.append(author, make("div", "bubble", words(text), clock(time)));
  return item;
}

function notice(name, what, time) {
  const who = name === "" ? "" : name === me ? "You" : make("bdi", "", name);
  append(make("p", "notice", who, ` ${what} · `, clock(time)), time, true);
}

const dayOf = (seconds) => new Date(seconds * 1000).toDateString();

function isNewDay(time) {
  const last = log.lastElementChild;
  return last ? dayOf(last.dataset.time) !== dayOf(time) : dayOf(time) !== dayOf(Date.now() / 1000);
}

function append(item, time, fresh) {
  const down = isDown() || item.classList.contains("mine");
  if (isNewDay(time)) {
    const date = new Date(time * 1000);
    const today = dayOf(time) === dayOf(Date.now() / 1000);
    const day = make("p", "day", today ? "Today" : date.toLocaleDateString([], { dateStyle: "full" }));
    day.dataset.time = time;
    log.append(day);
  }
  item.dataset.time = time;
  if (fresh && !item.classList.contains("mine")) item.classList.add("new");
  log.append(item);
  while (log.childElementCount > LONGEST_LOG) {
    shown.delete(log.firstElementChild.dataset.id);
    log.firstElementChild.remove();
  }
  showSilence();
  if (down) scrollDown();
  else if (item.classList.contains("message")) $("newest").hidden = false;
}

const isDown = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;

let wasDown = true; // before the last change of size
let knownHeight = 0; // of the scroller, when wasDown was found out

function scrollDown() {
  scroller.scrollTop = scroller.scrollHeight;
  $("newest").hidden = true;
  wasDown = true;
}

function keepDown() {
  if (wasDown) scrollDown();
}

scroller.addEventListener("scroll", () => {
  if (scroller.clientHeight !== knownHeight) return; // resized in between: the observer's turn
  wasDown = isDown();
  if (wasDown) $("newest").hidden = true;
}, { passive: true });
new ResizeObserver(() => { // the keyboard of a phone opens, the field grows
  knownHeight = scroller.clientHeight;
  keepDown();
}).observe(scroller);
$("newest").addEventListener("click", () => {
  scrollDown();
  textField.focus();
});

// Writing. What is said goes to the outbox and stays there until the server says it back.

const length = (text) => [...text].length; // as the server counts: characters, not halves of them

function say(text) {
  const id = token();
  const item = make("li", "message mine first", make("div", "bubble", words(text), make("span", "state")));
  outboxList.append(item);
  outbox.set(id, { topic: topicOf(roomName), text, item });
  showState(item);
  showSilence();
  scrollDown();
  send(id);
}

/** Publish what is in the outbox. Its id is the key, too: so it is said once, however often it is sent. */
async function send(id) {
  const { topic, text, item } = outbox.get(id);
  if (item.classList.contains("refused")) return;
  try {
    await pubsub.publish(topic, JSON.stringify({ id, text }), id);
    heard(id);
  } catch (error) {
    if (error.code !== "closed" && outbox.has(id)) refuse(id, error.message);
  }
}

function heard(id) {
  outbox.get(id)?.item.remove();
  outbox.delete(id);
}

function showState(item) {
  if (item.classList.contains("refused")) return;
  item.querySelector(".state").textContent = link === "here" ? "Sending" : "Waits for the connection";
}

function refuse(id, reason) {
  const { text, item } = outbox.get(id);
  const edit = make("button", "edit", "Edit");
  edit.type = "button";
  edit.addEventListener("click", () => {
    outbox.delete(id);
    item.remove();
    textField.value = [text, textField.value].filter(Boolean).join("\n");
    textField.focus();
    textField.dispatchEvent(new Event("input"));
  });
  item.classList.add("refused");
  item.querySelector(".state").replaceChildren(`Not sent. ${reason}`, edit);
}

function showCount() {
  const text = textField.value.trim();
  const left = limits.text - length(text);
  textCount.classList.toggle("over", left < 0);
  textField.setAttribute("aria-invalid", String(left < 0));
  textCount.textContent = left < 0 ? `${-left} too many` : left <= 100 ? `${left} left` : "";
  sendButton.setAttribute("aria-disabled", String(!text || left < 0));
}

function fitText() {
  textField.style.height = "auto";
  textField.style.height = `${textField.scrollHeight}px`;
  textField.style.overflowY = textField.scrollHeight > textField.clientHeight ? "auto" : "hidden";
}

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = textField.value.trim();
  textField.focus();
  if (!text || length(text) > limits.text) return;
  textField.value = "";
  fitText();
  showCount();
  say(text);
});

textField.addEventListener("input", () => {
  fitText();
  showCount();
});

textField.addEventListener("keydown", (event) => {
  // Enter that ends the composition of a character (isComposing, or 229 in Safari) is not the end of the message.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  $("say").requestSubmit();
});

// The window

function showTitle() {
  document.title = unread ? `(${unread}) Chat` : "Chat";
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  showTitle();
});

nameField.value = wanted;
roomField.value = namedRoom();
showCount();
entrance.hidden = false;
if (wanted && seatKey()) connect(); // reloaded: this window was in the room
else nameField.focus();
