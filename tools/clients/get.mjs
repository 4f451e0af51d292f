// A client in JavaScript: get.mjs LIBRARY get URL... | get.mjs LIBRARY put FILE URL
//
// PROXY is the proxy's URL. The usual variables are set, too.
import { readFileSync } from "node:fs";

const proxy = process.env.PROXY;
const byHTTP = proxy.startsWith("http:");

function check(status, text) {
  if (status >= 300) throw new Error(`status ${status} ${text ?? ""}`.trim());
}

const libraries = {
  async fetch() {
    return async (method, url, body) => {
      const response = await fetch(url, { method, body });
      check(response.status, response.statusText);
      return Buffer.from(await response.arrayBuffer());
    };
  },

  async undici() {
    const { request, EnvHttpProxyAgent, Socks5ProxyAgent } = await import("undici");
    const dispatcher = byHTTP ? new EnvHttpProxyAgent() : new Socks5ProxyAgent(proxy.replace("socks5h:", "socks5:"));
    return async (method, url, body) => {
      const response = await request(url, { method, body, dispatcher });
      check(response.statusCode);
      return Buffer.from(await response.body.arrayBuffer());
    };
  },

  async axios() {
    const { default: axios } = await import("axios");
    const settings = { responseType: "arraybuffer", maxBodyLength: Infinity, maxContentLength: Infinity };
    if (!byHTTP) {
      const { SocksProxyAgent } = await import("socks-proxy-agent");
      const agent = new SocksProxyAgent(proxy);
      Object.assign(settings, { httpAgent: agent, httpsAgent: agent, proxy: false });
    }
    return async (method, url, data) => (await axios({ method, url, data, ...settings })).data;
  },

  async got() {
    const { default: got } = await import("got");
    const { HttpProxyAgent } = await import("http-proxy-agent");
    const { HttpsProxyAgent } = await import("https-proxy-agent");
    const { SocksProxyAgent } = await import("socks-proxy-agent");
    const keep = { keepAlive: true };
    const socks = byHTTP ? null : new SocksProxyAgent(proxy, keep);
    const agent = {
      http: socks ?? new HttpProxyAgent(proxy, keep),
      https: socks ?? new HttpsProxyAgent(proxy, keep),
    };
    return async (method, url, body) => await got(url, { method, body, agent, retry: { limit: 0 } }).buffer();
  },

  async ws() {
    const { default: WebSocket } = await import("ws");
    const { HttpsProxyAgent } = await import("https-proxy-agent");
    const { SocksProxyAgent } = await import("socks-proxy-agent");
    const agent = byHTTP ? new HttpsProxyAgent(proxy) : new SocksProxyAgent(proxy);
    return async (method, url, body) => {
      const { protocol, host, pathname } = new URL(url);
      const socket = new WebSocket(`${protocol === "https:" ? "wss" : "ws"}://${host}/ws`, { agent });
      return await new Promise((resolve, reject) => {
        socket.on("open", () => socket.send(body ? body.toString() : pathname));
        socket.on("message", (data) => {
          resolve(Buffer.from(data));
          socket.close();
        });
        socket.on("error", reject);
      });
    };
  },
};

const [library, action, ...rest] = process.argv.slice(2);
try {
  const send = await libraries[library]();
  if (action === "put") {
    process.stdout.write(await send("PUT", rest[1], readFileSync(rest[0])));
  } else {
    for (const url of rest) process.stdout.write(await send("GET", url));
  }
} catch (error) {
  // As a program would log it, without the stack.
  const texts = [];
  for (let e = error; e instanceof Error; e = e.cause) texts.push(String(e));
  console.error(texts.join("; cause: "));
  process.exitCode = 1;
}
