# What the blocks of the pages take for granted: executions in a state, by a function for each. They answer its id.

task() { # agent, words
  curl -s "localhost:$ORCHESTRATOR_PORT/tasks" -H 'Content-Type: application/json' \
    -d "{\"agent_name\": \"$1\", \"task_data\": {\"prompt\": \"${2:-6 * 7}\"}}" | jq -r .execution_id
}

reached() { # status, id
  until [[ $(curl -s "localhost:$ORCHESTRATOR_PORT/tasks/$2" | jq -r .status) == "$1" ]]; do sleep 0.05; done
  echo "$2"
}

finished() { reached completed "$(task "${1:-helper}")"; }
failed() { reached failed "$(task failing)"; }
at_work() { reached running "$(task dreamer)"; }
asking() { reached waiting_for_input "$(task asker)"; }     # a question in words
to_approve() { reached waiting_for_input "$(task cashier)"; } # a call that a person must allow
unknown() { reached waiting_for_input "$(task refunder)"; }  # a call of which nobody knows whether it happened

# The execution that a command of a page, $LINE, is about.
meant() {
  case $LINE in
    *edit-plan*) planned ;;
    *--happened* | *--repeat*) unknown ;;
    *approve* | *reject* | *edit* | *show\ ID:*) to_approve ;;
    *answer*) asking ;;
    *cancel*) at_work ;;
    *retry*) failed ;;
    *) finished incident-writer ;;
  esac
}

planned() { # a plan that a person must approve
  reached waiting_for_input "$(curl -s "localhost:$ORCHESTRATOR_PORT/collaborative/tasks" -H 'Content-Type: application/json' \
    -d '{"coordinator_agent": "research-team", "task_description": "Is it worth it?", "require_plan_approval": true}' |
    jq -r .task_id)"
}

called_back() { # one whose end somebody was to be told
  reached completed "$(curl -s "localhost:$ORCHESTRATOR_PORT/tasks" -H 'Content-Type: application/json' \
    -d '{"agent_name": "reporter", "task_data": {"prompt": "Go."}, "callback_url": "https://shop.example.com/hooks"}' |
    jq -r .execution_id)"
}

given_up() { # an event that no agent took: a message for a conversation that takes one at a time
  local guest=$RANDOM id
  for _ in 1 2; do
    curl -s "localhost:$ORCHESTRATOR_PORT/events" -H 'Content-Type: application/json' -o /dev/null \
      -d "{\"topic\": \"guests.message\", \"data\": {\"guest_id\": \"$guest\", \"text\": \"Hello?\"}}"
  done
  until id=$(curl -s "localhost:$ORCHESTRATOR_PORT/dead-letters" | jq -er '.[0].id'); do sleep 0.05; done
  echo "$id"
}
