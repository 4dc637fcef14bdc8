// Publish and subscribe over a websocket, for browsers. A module without dependencies:
//
//     import {PubSub} from "/pubsub.js";
//
//     const pubsub = new PubSub("/ws", {onstate: (state) => console.log(state)});
//     const room = pubsub.subscribe("room/1", {
//         last: 50,
//         onsubscribed: ({recovered}) => { if (!recovered) list.replaceChildren(); },
//         onmessage: (data) => show(JSON.parse(data)),
//         onpresence: (present) => count(present.size),
//     });
//     await room.publish("hello");
//
// The connection is made again when it is lost, as long as that may help, after a while that grows and is left to chance.
// Subscriptions then go on where they were, with what was missed, each message once and in order; or `recovered` is
// false. What is published waits for its answer, and is sent again until that has come: it is published once.
// The protocol is in docs/pubsub.rst.

const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010]);
const GIVEN_UP = 4000; // what a server is told that may hear it yet; 1000 would say that the page leaves for good
const STABLE = 10000; // so many milliseconds after it was opened, a connection has not failed

// What the server has refused, or what can't be done any more: `code` is one of the protocol's, "closed" or "too-many".
export class PubSubError extends Error {
    constructor(code, text) {
        super(text);
        this.name = "PubSubError";
        this.code = code;
    }
}

function newKey() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// What a page is on. Made by PubSub.subscribe().
//
// topic      its name
// position   of the last message, [epoch, offset]; null as long as there is none, or the topic has no history
// present    who is there: a Map from names to what is known of them
class Subscription {
    #pubsub;

    constructor(pubsub, topic, options) {
        this.#pubsub = pubsub;
        this.topic = topic;
        this.options = options;
        this.position = options.since ?? null;
        this.present = new Map();
        this.id = null; // of the request that has begun it
        this.begun = false; // whether that was answered: what comes before is another one's
    }

    // Publish a text to the topic; see PubSub.publish().
    publish(data, key = newKey()) {
        return this.#pubsub.publish(this.topic, data, key);
    }

    // Get nothing any more.
    unsubscribe() {
        this.#pubsub.unsubscribe(this.topic);
    }
}

export class PubSub {
    #url;
    #options;
    #socket = null;
    #subscriptions = new Map();
    #requests = new Map(); // by id, in the order in which they were made: what waits for an answer
    #number = 0;
    #attempt = 0;
    #timer = 0; // until the next attempt
    #watch = 0; // until it is seen whether the server is there
    #openedAt = 0;
    #wake = () => {
        if (!document.hidden) this.retry();
    };

    // url       of the websocket; relative to the page, http stands for ws
    // onstate   called with the state when that has changed: "connecting", "open", "waiting" (with {delay} in
    //           milliseconds, {code} and {reason}), "closed" (with {code} and {reason})
    // greeting  called when a connection is open: the request that it returns is sent first, before any subscription
    // onother   called with a message whose type the protocol does not have, or an error that answers no other request
    // protocols the subprotocols to offer
    // initial, maximum, jitter   of the delays before a lost connection is made again, in milliseconds; the jitter is
    //           the part of a delay that is left to chance, from 0 to 1
    // quiet     after how many milliseconds without a message the server is asked whether it is there
    // patience  how long its answer may take, and a handshake
    // waiting   how many publications may wait for their answers
    constructor(url, options = {}) {
        this.#url = new URL(url, location.href);
        this.#url.protocol = this.#url.protocol.replace(/^http/, "ws");
        this.#options = {
            onstate: () => {}, greeting: () => null, onother: () => {}, protocols: [],
            initial: 1000, maximum: 60000, jitter: 0.5, quiet: 25000, patience: 10000, waiting: 100,
            ...options,
        };
        this.state = "new";
        addEventListener("online", this.#wake);
        document.addEventListener("visibilitychange", this.#wake);
        this.#connect();
    }

    // Get what is published to a topic; returns a Subscription. An option may be missing:
    //
    // since, last    the position to begin after; with how many messages to begin else
    // onsubscribed   called with {recovered, position, messages} each time it begins, or goes on: so many follow that
    //                were published before; if not recovered, what was there before is not to be relied on
    // onmessage      called with the text, or the bytes, of a message, and its offset
    // onpresence     called with `present` and the message, "joined" or "left", when somebody has come or gone, and with
    //                "presence" when all are known anew; without it nobody is asked who is there
    // onerror        called with a PubSubError: it is not subscribed, or no more
    subscribe(topic, options = {}) {
        if (this.#subscriptions.has(topic)) throw new PubSubError("refused", `There is a subscription to ${topic}`);
        const subscription = new Subscription(this, topic, options);
        this.#subscriptions.set(topic, subscription);
        if (this.state === "open") this.#begin(subscription);
        return subscription;
    }

    // End a subscription; if there is none, do nothing.
    unsubscribe(topic) {
        if (this.#subscriptions.delete(topic) && this.state === "open") this.#ask({type: "unsubscribe", topic});
    }

    // Publish a text. The promise is fulfilled when it is published, however often the connection is lost meanwhile, and
    // rejected with a PubSubError if it can't be. Of those with one key the first is published.
    publish(topic, data, key = newKey()) {
        return this.#keep({type: "publish", topic, data, key});
    }

    // Send a request that the protocol does not have, an object with a type; tells whether there is a connection now.
    send(request) {
        if (this.state === "open") this.#send(request);
        return this.state === "open";
    }

    // Connect now, if that waits for its time.
    retry() {
        if (this.state === "waiting") this.#connect();
    }

    // Close for good.
    close() {
        this.#end({code: 1000, reason: ""});
    }

    // --- the connection -------------------------------------------------------------------------------------------

    #connect() {
        clearTimeout(this.#timer);
        const socket = new WebSocket(this.#url, this.#options.protocols);
        this.#socket = socket;
        this.#change("connecting");
        this.#await(this.#options.patience, () => this.#lost({code: 1006, reason: "No answer to the handshake"}));
        socket.onopen = () => this.#opened();
        socket.onclose = ({code, reason}) => this.#lost({code, reason});
        socket.onmessage = ({data}) => {
            this.#listen();
            this.#received(JSON.parse(data));
        };
    }

    #opened() {
        this.#openedAt = Date.now();
        this.#listen();
        const greeting = this.#options.greeting();
        if (greeting !== null) this.#send(greeting);
        for (const subscription of this.#subscriptions.values()) this.#begin(subscription);
        for (const {request} of this.#requests.values()) this.#send(request);
        this.#change("open");
    }

    // The connection is at its end, or is given up; make another one, if that may help.
    #lost(detail) {
        this.#drop(GIVEN_UP);
        if (FINAL.has(detail.code) || detail.code >= 3000) {
            this.#end(detail);
            return;
        }
        if (this.#openedAt && Date.now() - this.#openedAt >= STABLE) this.#attempt = 0;
        this.#openedAt = 0;
        const {initial, maximum, jitter} = this.#options;
        const longest = Math.min(maximum, initial * 2 ** Math.min(this.#attempt, 30));
        const delay = longest * (1 - jitter * Math.random());
        this.#attempt += 1;
        this.#timer = setTimeout(() => this.#connect(), delay);
        this.#change("waiting", {...detail, delay});
    }

    #end(detail) {
        if (this.state === "closed") return;
        this.#drop(1000);
        clearTimeout(this.#timer);
        removeEventListener("online", this.#wake);
        document.removeEventListener("visibilitychange", this.#wake);
        this.#change("closed", detail);
        const error = new PubSubError("closed", detail.reason || `The connection is closed (${detail.code})`);
        for (const {reject} of this.#requests.values()) reject(error);
        this.#requests.clear();
        this.#subscriptions.clear();
    }

    // Have nothing to do with the socket any more: one whose server is gone may take long to close.
    #drop(code) {
        clearTimeout(this.#watch);
        const socket = this.#socket;
        this.#socket = null;
        if (socket === null) return;
        socket.onopen = socket.onclose = socket.onmessage = null;
        socket.close(code);
    }

    #change(state, detail = {}) {
        this.state = state;
        this.#options.onstate(state, detail);
    }

    // Something has come: when nothing does for a while, ask whether the server is there.
    #listen() {
        this.#await(this.#options.quiet, () => {
            this.#send({type: "ping"});
            this.#await(this.#options.patience, () => this.#lost({code: 1006, reason: "The server does not answer"}));
        });
    }

    #await(delay, action) {
        clearTimeout(this.#watch);
        this.#watch = setTimeout(action, delay);
    }

    // --- requests -------------------------------------------------------------------------------------------------

    #send(message) {
        this.#socket.send(JSON.stringify(message));
    }

    // Send a request that is made anew with each connection; return its id.
    #ask(request) {
        const id = `${request.type} ${++this.#number}`;
        this.#send({...request, id});
        return id;
    }

    // Send a request, now or when there is a connection, and again until it is answered.
    #keep(request) {
        return new Promise((resolve, reject) => {
            if (this.state === "closed") {
                reject(new PubSubError("closed", "The connection is closed"));
                return;
            }
            if (this.#requests.size >= this.#options.waiting) {
                reject(new PubSubError("too-many", "Too many publications wait for their answers"));
                return;
            }
            request.id = ++this.#number;
            this.#requests.set(request.id, {request, resolve, reject});
            if (this.state === "open") this.#send(request);
        });
    }

    #begin(subscription) {
        const {topic, position, options} = subscription;
        subscription.begun = false;
        subscription.id = this.#ask({type: "subscribe", topic, since: position, last: options.last ?? 0});
        if (options.onpresence) this.#ask({type: "presence", topic});
    }

    #received(message) {
        const {type, id} = message;
        const waiting = this.#requests.get(id);
        const subscription = this.#subscriptions.get(message.topic);
        if (type === "error") {
            this.#failed(waiting, subscription, message);
        } else if (type === "published") {
            waiting?.resolve();
        } else if (type === "unsubscribed") {
            if (subscription && id === undefined) this.#stop(subscription, "forbidden", "The server has ended it");
        } else if (type in HANDLERS) {
            if (subscription && !HANDLERS[type](subscription, message)) {
                this.#lost({code: 1006, reason: "Messages were missed"});
            }
        } else if (type !== "pong") {
            this.#options.onother(message);
        }
        this.#requests.delete(id);
    }

    #failed(waiting, subscription, {id, code, text}) {
        if (waiting) {
            waiting.reject(new PubSubError(code, text));
        } else if (!subscription) {
            this.#options.onother({type: "error", id, code, text});
        } else if (subscription.id !== id) {
            subscription.options.onerror?.(new PubSubError(code, text));
        } else if (code === "unavailable") {
            this.#lost({code: 1013, reason: text}); // it may be done later
        } else {
            this.#stop(subscription, code, text);
        }
    }

    #stop(subscription, code, text) {
        this.#subscriptions.delete(subscription.topic);
        subscription.options.onerror?.(new PubSubError(code, text));
    }
}

// What is done with a message for a subscription. Each tells whether nothing is missing.
const HANDLERS = {
    subscribed(subscription, {id, recovered, position, messages}) {
        if (id !== subscription.id) return true;
        subscription.begun = true;
        subscription.position = position && [position[0], position[1] - messages];
        subscription.options.onsubscribed?.({recovered, position, messages});
        return true;
    },

    message(subscription, {offset, data, binary}) {
        const {begun, position, options} = subscription;
        if (!begun) return true;
        if (position && offset !== undefined) {
            if (offset <= position[1]) return true;
            if (offset !== position[1] + 1) return false;
            subscription.position = [position[0], offset];
        }
        options.onmessage?.(data ?? Uint8Array.from(atob(binary), (character) => character.charCodeAt(0)), offset);
        return true;
    },

    presence(subscription, message) {
        subscription.present = new Map(message.present.map(({name, info}) => [name, info]));
        subscription.options.onpresence?.(subscription.present, message);
        return true;
    },

    joined(subscription, message) {
        subscription.present.set(message.name, message.info);
        subscription.options.onpresence?.(subscription.present, message);
        return true;
    },

    left(subscription, message) {
        subscription.present.delete(message.name);
        subscription.options.onpresence?.(subscription.present, message);
        return true;
    },
};
