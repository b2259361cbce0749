"""A state's fields in the embedded cloud: JSONata, variables, sizes, AWS's words where one is wrong; in the server.

ministack evaluates an expression; which field it is in, what $states.context shows of the execution, and how large a
value may be are ours. Sources: recordings of executions on AWS (LocalStack's snapshots, 2024 to 2026); Step Functions
guide, "Service quotas" (256 KiB: a payload, a variable, what one Assign assigns; 10 MiB: all variables).
"""

import contextvars
import json
from collections.abc import Mapping
from typing import Any

from dml.local import hooks
from stacks.arguments import is_expression

PAYLOAD_BYTES = 256 * 1024
VARIABLES_BYTES = 10 * 1024 * 1024
SHOWN = ("Execution", "State", "StateMachine", "Task", "Map")  # of an execution, in $states.context
NOTHING = "JSONata expression did not return a result"  # ministack's words

# The state that this thread works on: its name, and the id of the event with which it was entered.
entered: contextvars.ContextVar[tuple[str, int]] = contextvars.ContextVar("dml_entered", default=("", 0))


class Fields:
    """Reads the fields of states."""

    def __init__(self) -> None:
        self._sfn = hooks.module("services.stepfunctions")

    def apply(self) -> None:
        """Extends ministack's interpreter."""
        sfn = self._sfn
        for name in ("_apply_jsonata_template", "_json_type", "_next_or_end", "_resolve_params_obj", "_parse_ts"):
            hooks.existing(sfn, name)
        for name in ("_apply_input_path", "_state_query_language", "_apply_parameters"):
            hooks.existing(sfn, name)
        self._evaluate = hooks.replace(sfn, "_evaluate_jsonata", self.evaluate)
        self._choose = hooks.replace(sfn, "_execute_choice", self.choose)
        self._pass = hooks.replace(sfn, "_execute_pass", self.execute_pass)
        hooks.replace(sfn, "_apply_jsonata_arguments", self.arguments)
        hooks.replace(sfn, "_apply_jsonata_output", self.output)
        hooks.replace(sfn, "_apply_state_assign", self.assign)
        hooks.replace(sfn, "_jsonata_state_field", self.typed)
        hooks.replace(sfn, "_fail_state_error", self.failure)

    # --- expressions ---

    def evaluate(
        self, expression: str, given: Any, context: Any = None, result: Any = None, error_output: Any = None
    ) -> Any:
        """An expression's value, which sees of the execution what AWS shows."""
        seen = _Context(context or {})
        return self._evaluate(expression, given, seen, result, error_output)

    def value(self, field: str, template: Any, *arguments: Any) -> Any:
        """What a field is, all expressions in it evaluated."""
        if isinstance(template, dict):
            return {key: self.value(f"{field}/{key}", item, *arguments) for key, item in template.items()}
        if isinstance(template, list):
            return [self.value(f"{field}[{index}]", item, *arguments) for index, item in enumerate(template)]
        if not is_expression(template):
            return template
        expression = template[2:-2].strip()
        try:
            return self.evaluate(expression, *arguments)
        except self._sfn._ExecutionError as error:
            told = f"The JSONata expression '{expression}' specified for the field '{field}' "
            if str(error.cause).startswith(NOTHING):
                raise self.error(told + "returned nothing (undefined).") from None
            raise self.error(f"{told}threw an error during evaluation. {error.cause}") from None

    def typed(self, state: Mapping[str, Any], field: str, expected: str, given: Any, context: Any) -> Any:
        """A field that must be of one type of JSON."""
        return self.of_type(expected, field, state[field], given, context)

    def of_type(self, expected: str, field: str, template: Any, *arguments: Any) -> Any:
        """The field's value; States.QueryEvaluationError if its expression gives another type than `expected`."""
        value = self.value(field, template, *arguments)
        found = self._sfn._json_type(value)
        if found != expected:
            shown = json.dumps(value, separators=(",", ":"))
            told = (
                f"The JSONata expression '{template[2:-2].strip()}' specified" if is_expression(template) else "A value"
            )
            raise self.error(
                f"{told} for the field '{field}' returned an unexpected result type. "
                f"Expected '{expected}', but was '{found}' for value: {shown}"
            )
        return value

    def error(self, told: str, name: str = "States.QueryEvaluationError") -> Exception:
        """An error of this state, in AWS's words."""
        state, event = entered.get()
        where = f"An error occurred while executing the state '{state}' (entered at the event id #{event}). "
        error: Exception = self._sfn._ExecutionError(name, where + told)
        return error

    # --- fields ---

    def arguments(self, state: Mapping[str, Any], given: Any, context: Any = None) -> Any:
        """A Task's Arguments; its input if it has none."""
        return self.value("Arguments", state["Arguments"], given, context) if "Arguments" in state else given

    def output(  # as ministack calls it
        self,
        state: Mapping[str, Any],
        given: Any,
        context: Any = None,
        result: Any = None,
        error_output: Any = None,
        default: Any = None,
    ) -> Any:
        """A state's, a rule's or a catcher's Output."""
        if "Output" not in state:
            return default
        return self.value("Output", state["Output"], given, context, result, error_output)

    def assign(
        self, state: Mapping[str, Any], given: Any, context: Any, result: Any = None, error_output: Any = None
    ) -> None:
        """Sets variables, all of one Assign at once: an expression in it sees them as they were before."""
        if context is None or self._sfn._state_query_language(state, context) != "JSONata":
            return
        if isinstance(state.get("Assign"), dict):
            self._set(self.value("Assign", state["Assign"], given, context, result, error_output), context)

    def _set(self, fresh: Mapping[str, Any], context: dict[str, Any]) -> None:
        if size(fresh) > PAYLOAD_BYTES:
            raise self.error(f"Assign gives variables of more than {PAYLOAD_BYTES} bytes.", "States.DataLimitExceeded")
        variables = context.setdefault("variables", {})
        if size({**variables, **fresh}) > VARIABLES_BYTES:
            raise self.error(f"All variables have more than {VARIABLES_BYTES} bytes.", "States.DataLimitExceeded")
        variables.update(fresh)

    # --- states ---

    def choose(self, state: Mapping[str, Any], given: Any, context: Any = None) -> Any:
        """A Choice. Its own Output and Assign are those of its Default."""
        if self._sfn._state_query_language(state, context) != "JSONata":
            return self._choose(state, given, context)
        for index, rule in enumerate(state.get("Choices", [])):
            if self.of_type("boolean", f"Choices[{index}]/Condition", rule.get("Condition"), given, context):
                return self._chosen(rule, rule["Next"], given, context)
        if "Default" in state:
            return self._chosen(state, state["Default"], given, context)
        raise self._sfn._ExecutionError("States.NoChoiceMatched", "No choice rule matched and no Default")

    def _chosen(self, rule: Mapping[str, Any], then: str, given: Any, context: Any) -> tuple[Any, str]:
        output = self.output(rule, given, context, default=given)
        self.assign({"QueryLanguage": "JSONata", **rule}, given, context)
        return output, then

    def execute_pass(self, state: Mapping[str, Any], given: Any, context: Any = None) -> Any:
        """A Pass; in JSONPath ministack knows no Assign."""
        if "Assign" in state and self._sfn._state_query_language(state, context) != "JSONata":
            effective = self._sfn._apply_parameters(state, self._sfn._apply_input_path(state, given, context), context)
            self._set(self._sfn._resolve_params_obj(state["Assign"], state.get("Result", effective), context), context)
        return self._pass(state, given, context)

    def failure(self, state: Mapping[str, Any], given: Any, context: Any = None) -> tuple[str | None, str | None]:
        """A Fail state's error and cause; what it does not say is not there, neither in the execution."""
        jsonata = self._sfn._state_query_language(state, context) == "JSONata"

        def field(name: str) -> Any:
            if jsonata:
                return self.typed(state, name, "string", given, context) if name in state else None
            return self._sfn._fail_state_field(state, name, None, given, context)

        return field("Error"), field("Cause")

    # --- sizes ---

    def check_size(self, value: Any, what: str) -> Any:
        """What the Task or the state `what` has given; States.DataLimitExceeded if that is too large."""
        if size(value) > PAYLOAD_BYTES:
            told = f"The state/task '{what}' returned a result with a size exceeding the maximum number of bytes"
            raise self._sfn._ExecutionError("States.DataLimitExceeded", f"{told} service limit.")  # AWS's words
        return value


class _Context(dict[str, Any]):
    """What $states.context shows of ministack's context; the variables only for ministack itself, by `get`."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        super().__init__({name: context[name] for name in SHOWN if name in context})
        self._hidden = {"variables": context.get("variables", {})}

    def get(self, key: str, default: Any = None) -> Any:
        return self._hidden[key] if key in self._hidden else super().get(key, default)


def size(value: Any) -> int:
    """Of the value as JSON, in bytes of UTF-8."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())
