// A small MCP server over stdio, by hand, so that it can do what no good server does.
import { spawn } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const note = (line) => process.env.NOTES && appendFileSync(process.env.NOTES, line + '\n')
const send = (message) => process.stdout.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\n')
const reply = (id, result) => send({ id, result })
const say = (id, text, more = {}) => reply(id, { content: [{ type: 'text', text }], ...more })

const schema = { type: 'object', properties: {} }
const tool = (name, description = name) => ({ name, description, inputSchema: schema })
const tools = ['echo', 'meta', 'env', 'never', 'die', 'grow', 'change', 'ask', 'huge', 'fail', 'child', 'dotted.name']
  .map((name) => tool(name))

const asked = new Map()
const calls = {
  echo: (id, { arguments: args }) => say(id, JSON.stringify(args)),
  meta: (id, { _meta }) => say(id, JSON.stringify(_meta)),
  env: (id) => say(id, JSON.stringify(process.env)),
  never: () => {},
  die: () => process.exit(3),
  grow: (id) => {
    tools.push(tool('grown'))
    send({ method: 'notifications/tools/list_changed' })
    say(id, 'grown')
  },
  change: (id) => {
    tools[0] = tool('echo', 'now it does something else')
    send({ method: 'notifications/tools/list_changed' })
    say(id, 'changed')
  },
  ask: (id) => {
    const questions = [
      ['sampling/createMessage', { messages: [], maxTokens: 1 }],
      ['elicitation/create', { message: 'Your password?', requestedSchema: schema }],
      ['roots/list', {}],
    ]
    const answers = {}
    for (const [method, params] of questions) {
      const question = `q-${method}`
      asked.set(question, (answer) => {
        answers[method] = answer.error ? 'error' : answer.result.action
        if (Object.keys(answers).length === questions.length) say(id, JSON.stringify(answers))
      })
      send({ id: question, method, params })
    }
  },
  huge: (id) => say(id, 'x'.repeat(1 << 20)),
  fail: (id) => say(id, 'it went wrong', { isError: true }),
  child: (id) => {
    const child = spawn('sleep', ['1000'], { stdio: 'ignore' })
    say(id, JSON.stringify({ server: process.pid, child: child.pid }))
  },
  'dotted.name': (id) => say(id, 'dotted'),
}

const requests = {
  initialize: (id, { protocolVersion }) =>
    reply(id, {
      protocolVersion,
      capabilities: { tools: { listChanged: true } },
      serverInfo: { name: 'test', version: '1' },
    }),
  'tools/list': (id, params) => {
    note('list')
    // Two pages, so that paging is seen to work.
    const half = 6
    if (params?.cursor === 'more') reply(id, { tools: tools.slice(half) })
    else reply(id, { tools: tools.slice(0, half), nextCursor: 'more' })
  },
  'tools/call': (id, params) => {
    note(`call ${params.name}`)
    const call = calls[params.name]
    if (call) call(id, params)
    else send({ id, error: { code: -32602, message: `no tool ${params.name}` } })
  },
  ping: (id) => reply(id, {}),
}

note(`start ${process.pid}`)
if (process.env.BROKEN) {
  console.error(`cannot start: the key ${process.env.BROKEN} is wrong`)
  process.exit(1)
}
createInterface({ input: process.stdin }).on('line', (line) => {
  const message = JSON.parse(line)
  if (message.method === undefined) asked.get(message.id)?.(message)
  else if (message.id === undefined) note(message.method)
  else if (requests[message.method]) requests[message.method](message.id, message.params ?? {})
  else send({ id: message.id, error: { code: -32601, message: 'no such method' } })
}).on('close', () => process.env.STUBBORN || process.exit(0))
if (process.env.STUBBORN) setInterval(() => {}, 1000)
