package dml

import java.io.{BufferedReader, InputStreamReader, OutputStreamWriter}
import java.nio.charset.StandardCharsets.UTF_8
import java.util.{Map => JavaMap}

import scala.collection.JavaConverters._

import com.fasterxml.jackson.databind.{JsonNode, ObjectMapper}
import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.connector.catalog.{DelegatingCatalogExtension, Identifier, Table}
import org.apache.spark.sql.util.CaseInsensitiveStringMap

/** Spark's own catalog, which takes over what Glue says of a name before it answers for it.
  *
  * dml/local/spark/catalog.py is asked, which knows Glue and answers with statements of SQL. The entries are Spark's
  * own from then on, so that whatever of Spark looks for a table finds it; and each time it is asked anew, so that
  * what a run has published a moment ago is seen.
  */
class GlueCatalog extends DelegatingCatalogExtension {
  override def initialize(name: String, options: CaseInsensitiveStringMap): Unit = Glue.begin(options.get("python"))

  override def listNamespaces(): Array[Array[String]] = { Glue.bring(Nil); super.listNamespaces() }

  override def namespaceExists(namespace: Array[String]): Boolean = {
    Glue.bring(Nil); super.namespaceExists(namespace)
  }

  override def loadNamespaceMetadata(namespace: Array[String]): JavaMap[String, String] = {
    Glue.bring(Nil); super.loadNamespaceMetadata(namespace)
  }

  override def listTables(namespace: Array[String]): Array[Identifier] = {
    val tables = Glue.bring(namespace).map(Identifier.of(namespace, _))
    (super.listTables(namespace) ++ tables).distinct.sortBy(_.name)
  }

  override def loadTable(table: Identifier): Table = { bring(table); super.loadTable(table) }

  override def tableExists(table: Identifier): Boolean = { bring(table); super.tableExists(table) }

  private def bring(table: Identifier): Unit = Glue.bring(table.namespace :+ table.name, super.tableExists(table))
}

/** The process that knows Glue, one for all sessions of this Java. */
object Glue {
  private val json = new ObjectMapper
  private val within = new ThreadLocal[Boolean] // of its own statements, which bring nothing
  private var python = ""
  private lazy val process =
    new ProcessBuilder(python, "-m", "dml.local.spark.catalog").redirectError(ProcessBuilder.Redirect.INHERIT).start()
  private lazy val questions = new OutputStreamWriter(process.getOutputStream, UTF_8)
  private lazy val answers = new BufferedReader(new InputStreamReader(process.getInputStream, UTF_8))

  def begin(program: String): Unit = synchronized { python = program }

  /** Brings all databases (no name), the tables of a database, whose names are returned, or one table. */
  def bring(name: Seq[String], there: => Boolean = false): Seq[String] =
    if (within.get) Nil
    else synchronized {
      within.set(true)
      try {
        val told = answer(name, there)
        for (statement <- texts(told, "statements")) SparkSession.active.sql(statement)
        texts(told, "tables")
      } finally within.set(false)
    }

  private def answer(name: Seq[String], there: Boolean): JsonNode = {
    val question = json.createObjectNode()
    val parts = question.putArray("name")
    name.foreach(parts.add)
    question.put("there", there)
    questions.write(json.writeValueAsString(question) + "\n")
    questions.flush()
    val line = answers.readLine()
    if (line == null) throw new RuntimeException("Glue's catalog cannot be asked any more: restart the interpreter.")
    val told = json.readTree(line)
    if (told.has("error")) throw new RuntimeException(told.get("error").asText)
    told
  }

  private def texts(told: JsonNode, name: String): Seq[String] = told.path(name).asScala.map(_.asText).toList
}
