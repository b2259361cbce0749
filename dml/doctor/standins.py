"""Templates with something in the place of what is known only when deployed, so that AWS can be asked what it says.

An ARN of the right form stands for each resource, in AWS's own account number of examples; a definition or a policy
then reads as it will, and says nothing of any account.
"""

import re
from collections.abc import Mapping
from typing import Any

PSEUDO = {
    "AWS::AccountId": "111122223333",
    "AWS::NoValue": "",
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "stack",
    "AWS::URLSuffix": "amazonaws.com",
}
HERE = f"{PSEUDO['AWS::Region']}:{PSEUDO['AWS::AccountId']}"
# The ARN of a resource of a type, {} being its name.
ARNS = {
    "AWS::EC2::VPCEndpoint": f"arn:aws:ec2:{HERE}:vpc-endpoint/{{}}",
    "AWS::EMR::Cluster": f"arn:aws:elasticmapreduce:{HERE}:cluster/{{}}",
    "AWS::Glue::Crawler": f"arn:aws:glue:{HERE}:crawler/{{}}",
    "AWS::Glue::Database": f"arn:aws:glue:{HERE}:database/{{}}",
    "AWS::Glue::Job": f"arn:aws:glue:{HERE}:job/{{}}",
    "AWS::IAM::InstanceProfile": f"arn:aws:iam::{PSEUDO['AWS::AccountId']}:instance-profile/{{}}",
    "AWS::IAM::ManagedPolicy": f"arn:aws:iam::{PSEUDO['AWS::AccountId']}:policy/{{}}",
    "AWS::IAM::Role": f"arn:aws:iam::{PSEUDO['AWS::AccountId']}:role/{{}}",
    "AWS::KMS::Key": f"arn:aws:kms:{HERE}:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "AWS::Lambda::Function": f"arn:aws:lambda:{HERE}:function:{{}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{HERE}:log-group:{{}}:*",
    "AWS::S3::Bucket": "arn:aws:s3:::{}",
    "AWS::SNS::Topic": f"arn:aws:sns:{HERE}:{{}}",
    "AWS::SSM::Parameter": f"arn:aws:ssm:{HERE}:parameter/{{}}",
    "AWS::SecretsManager::Secret": f"arn:aws:secretsmanager:{HERE}:secret:{{}}-abcdef",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{HERE}:stateMachine:{{}}",
}
REF_IS_ARN = {
    "AWS::IAM::ManagedPolicy",
    "AWS::SNS::Topic",
    "AWS::SecretsManager::Secret",
    "AWS::StepFunctions::StateMachine",
}


class StandIns:
    """Fills in the values of an app's templates."""

    def __init__(self, templates: Mapping[str, Mapping[str, Any]]) -> None:
        self._templates = templates
        self._exports: dict[str, tuple[Mapping[str, Any], Any]] = {}
        for template in templates.values():
            for output in template.get("Outputs", {}).values():
                if "Export" in output:
                    self._exports[self._text(template, output["Export"]["Name"])] = (template, output["Value"])

    def fill(self, template: Mapping[str, Any], value: Any) -> Any:
        """A value of a template, without any function of CloudFormation's."""
        match value:
            case {"Ref": name} if len(value) == 1:
                return self._ref(template, str(name))
            case {"Fn::GetAtt": [name, attribute]}:
                return self._attribute(template, str(name), str(attribute))
            case {"Fn::Join": [separator, parts]}:
                return str(separator).join(self._text(template, part) for part in parts)
            case {"Fn::Sub": [text, _]} | {"Fn::Sub": text}:
                return re.sub(r"\$\{(!?)([^}]+)\}", lambda found: self._substituted(template, found), str(text))
            case {"Fn::ImportValue": name}:
                found = self._exports.get(self._text(template, name))
                return self.fill(*found) if found else "imported"
            case {"Fn::Select": [index, parts]} if isinstance(parts, list):
                return self.fill(template, parts[int(index)])
            case {"Fn::If": [_, chosen, _]}:
                return self.fill(template, chosen)
            case dict() if len(value) == 1 and next(iter(value)).startswith("Fn::"):
                return next(iter(value)).removeprefix("Fn::").lower()
            case dict():
                return {key: self.fill(template, inner) for key, inner in value.items()}
            case list():
                return [self.fill(template, inner) for inner in value]
        return value

    def _text(self, template: Mapping[str, Any], value: Any) -> str:
        return str(self.fill(template, value))

    def _substituted(self, template: Mapping[str, Any], found: re.Match[str]) -> str:
        if found[1]:  # ${!Literal}
            return f"${{{found[2]}}}"
        name, dot, attribute = found[2].partition(".")
        return self._attribute(template, name, attribute) if dot else str(self._ref(template, name))

    def _ref(self, template: Mapping[str, Any], name: str) -> Any:
        if name in PSEUDO:
            return PSEUDO[name]
        parameter = template.get("Parameters", {}).get(name)
        if parameter is not None:
            return parameter.get("Default", "parameter")
        kind = template["Resources"][name]["Type"]
        return self._attribute(template, name, "Arn") if kind in REF_IS_ARN else _name(name)

    def _attribute(self, template: Mapping[str, Any], name: str, attribute: str) -> str:
        pattern = ARNS.get(template["Resources"][name]["Type"])
        return pattern.format(_name(name)) if attribute == "Arn" and pattern else f"{_name(name)}-{attribute.lower()}"


def _name(logical_id: str) -> str:
    """A name that every service takes; a bucket's is the strictest."""
    return re.sub("[^a-z0-9]", "", logical_id.lower())[:40]
