// Print the alerts as they come, with kafkajs, which reads committed ones by default.
const { Kafka } = require('kafkajs')

const consumer = new Kafka({ brokers: ['localhost:9092'], logLevel: 1 }).consumer({ groupId: 'alerts-kafkajs' })

async function main() {
  await consumer.connect()
  await consumer.subscribe({ topic: 'alerts', fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => console.log(message.value.toString()) })
}

main()
