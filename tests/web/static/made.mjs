// States for the tests, as /api/state has them.

/** {state, app, flow}: a state that grows. */
export function made(...nodes) {
  const state = { node: nodes[0], nodes: nodes.map((name) => ({ name, state: "alive" })), apps: [], services: [], flows: [], connections: [], externals: [] };
  const app = (node, name, ip, ports = [], more = {}) => {
    const id = state.apps.length + 1;
    const made = { id, name, ip, node, tags: [], state: "up", command: ["/usr/bin/curl"], ...more };
    state.apps.push(made);
    for (const port of ports) state.services.push({ name, ip, port, proto: "tcp", app: id, node, tags: made.tags, scope: "public", medium: "unix" });
    return made;
  };
  const flow = (client, server, port, more = {}) => {
    const end = ({ name = null, ip = null, node = null, id = null }) => ({ name, ip, node, app: id });
    state.flows.push({ client: end(client), server: { ...end(server), port }, proto: "tcp", medium: "unix", connects: 1, rate: 1, open: 0, denied: 0, denied_rate: 0, rule: null, last: 1, ...more });
  };
  const deny = (client, server, port) => flow(client, server, port, { connects: 0, rate: 0, denied: 2, denied_rate: 0.5, rule: "grp" });
  return { state, app, flow, deny };
}
