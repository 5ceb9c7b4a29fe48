// As much of PostgreSQL's protocol (version 3, "Message Flow") as a query without a password takes.
"use strict";
const net = require("net");

const text = (string) => Buffer.from(string + "\0");
const withLength = (...parts) => {
  const body = Buffer.concat(parts);
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length + 4);
  return Buffer.concat([length, body]);
};

function fieldsOf(body) { // of a DataRow
  const fields = [];
  for (let at = 2; fields.length < body.readInt16BE(0);) {
    const length = body.readInt32BE(at);
    fields.push(length < 0 ? null : body.toString("utf8", at + 4, at + 4 + length));
    at += 4 + Math.max(length, 0);
  }
  return fields;
}

function errorOf(body) { // of an ErrorResponse: fields of a letter and a text
  const fields = Object.fromEntries(body.toString().split("\0").filter(Boolean).map((field) => [field[0], field.slice(1)]));
  return Object.assign(new Error(fields.M), { code: fields.C });
}

// The rows, each a list of texts. An error has the SQLSTATE as its code.
exports.query = ({ host, port = 5432, user, database }, sql) => new Promise((resolve, reject) => {
  const socket = net.connect(port, host);
  const rows = [];
  let received = Buffer.alloc(0);
  let asked = false;
  let failed = null;
  const version = Buffer.from([0, 3, 0, 0]);
  socket.on("connect", () => socket.write(withLength(version, text("user"), text(user), text("database"), text(database), text(""))));
  socket.on("error", reject);
  socket.on("close", () => reject(failed || new Error("the database closed the connection")));
  socket.on("data", (data) => {
    received = Buffer.concat([received, data]);
    while (received.length >= 5 && received.length > received.readInt32BE(1)) {
      const kind = String.fromCharCode(received[0]);
      const body = received.subarray(5, received.readInt32BE(1) + 1);
      received = received.subarray(received.readInt32BE(1) + 1);
      if (kind === "D") rows.push(fieldsOf(body));
      if (kind === "E") failed = errorOf(body);
      if (kind === "Z" && asked) { // ready again: it has answered
        socket.end(Buffer.concat([Buffer.from("X"), withLength()]));
        failed ? reject(failed) : resolve(rows);
      } else if (kind === "Z") {
        asked = true;
        socket.write(Buffer.concat([Buffer.from("Q"), withLength(text(sql))]));
      }
    }
  });
});
