"""The embedded cloud: AWS on loopback, as far as the project's templates need it; no stack and no job knows of it.

On this floor: the server's process (`server`), its owner (`cloud`), where it lives (`place`), its root user's key
(`credentials`), boto3 clients of it (`clients`), what runs in it (`running`, `processes`), ministack's hooks (`hooks`),
the deployment by the CDK CLI (`deploy`), and what commands do around it (`here`). Rooms: `access/` (who may do what),
`services/` (what ministack lacks), `spark/` (a spark-submit on this machine). Never: an answer that AWS would not give;
where no source says what it gives, docs/first-deploy.md does.
"""
