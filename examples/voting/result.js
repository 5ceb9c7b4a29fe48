// Shows the votes that are in `db`, at / for people and at /json. It knows nothing of AppSwitch.
"use strict";
const http = require("http");
const { query } = require("./postgres");

async function votes() {
  const counted = { cats: 0, dogs: 0 };
  try {
    const rows = await query({ host: "db", user: "guest", database: "postgres" },
      "select vote, count(*) from votes group by vote");
    for (const [vote, count] of rows) counted[vote] = Number(count);
  } catch (error) {
    if (error.code !== "42P01") throw error; // no table: nobody has voted
  }
  return counted;
}

http.createServer(async (request, response) => {
  try {
    const { cats, dogs } = await votes();
    const json = request.url === "/json";
    response.setHeader("Content-Type", json ? "application/json" : "text/html");
    response.end(json ? JSON.stringify({ cats, dogs })
      : `<!doctype html><title>Result</title><meta http-equiv=refresh content=1><h1>Cats ${cats} : ${dogs} Dogs</h1>`);
  } catch (error) {
    response.statusCode = 503;
    response.end(String(error));
  }
}).listen(80);
